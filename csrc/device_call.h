// One call of a kernel from Python: its arrays, their device, the stream, and the checks that keep memory safe.
// Part of the bindings: needs pybind11.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/numpy.h>

#include <algorithm>
#include <deque>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "device_array.h"
#include "dtype.h"
#include "status.h"

namespace ldf {

// ---- what arrays must be

inline void expect_type(const char* name, const DeviceArray& array, std::initializer_list<ElementType> types) {
  if (std::find(types.begin(), types.end(), array.type) != types.end()) return;
  std::string names;
  for (const ElementType& type : types) names += (names.empty() ? "" : ", ") + type.name();
  raise("DtypeError", std::string(name) + " is " + array.type.name() + "; expected " + names);
}

inline void expect_axes(const char* name, const DeviceArray& array, std::size_t count, const char* axes) {
  if (array.shape.size() != count)
    raise("InputError", std::string(name) + " has shape " + text(array.shape) + "; expected " + axes);
}

inline void expect_shape(const char* name, const DeviceArray& array, const Shape& shape, const char* why) {
  if (array.shape != shape)
    raise("InputError", std::string(name) + " has shape " + text(array.shape) + "; expected " + text(shape) + ", " + why);
}

// Whether elements follow each other in the order of these strides; axes of length 1 do not matter.
inline bool strided_as(const DeviceArray& array, const Shape& strides) {
  if (array.size() == 0) return true;
  for (std::size_t axis = 0; axis < strides.size(); ++axis)
    if (array.shape[axis] > 1 && array.strides[axis] != strides[axis]) return false;
  return true;
}

inline void expect_strides(const char* name, const DeviceArray& array, const Shape& strides, const char* layout) {
  if (!strided_as(array, strides))
    raise("InputError", std::string(name) + " of shape " + text(array.shape) + " has strides " + text(array.strides) +
                            " (elements); expected " + layout + ", " + text(strides) + ". Make it contiguous first");
}

inline Shape strides_of(Layout layout, const Shape& nchw) {
  if (layout == Layout::nchw) return c_order(nchw);
  const Shape nhwc = c_order({nchw[0], nchw[2], nchw[3], nchw[1]});
  return {nhwc[0], nhwc[3], nhwc[1], nhwc[2]};
}

inline Layout expect_dense(const char* name, const DeviceArray& array) {
  if (strided_as(array, strides_of(Layout::nchw, array.shape))) return Layout::nchw;
  if (strided_as(array, strides_of(Layout::nhwc, array.shape))) return Layout::nhwc;
  raise("InputError", std::string(name) + " of shape " + text(array.shape) + " has strides " + text(array.strides) +
                          " (elements); expected a dense array, [N,C,H,W] in C order or channels-last. Make it contiguous first");
}

// The bytes an array lies in, [first, second).
inline std::pair<std::intptr_t, std::intptr_t> extent(const DeviceArray& array) {
  std::intptr_t low = reinterpret_cast<std::intptr_t>(array.data), high = low + array.type.bytes();
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis) {
    const std::int64_t reach = (array.shape[axis] - 1) * array.strides[axis] * array.type.bytes();
    (reach < 0 ? low : high) += reach;
  }
  return {low, high};
}

inline void expect_apart(const char* name, const DeviceArray& out, const char* other, const DeviceArray& array) {
  if (out.size() == 0 || array.size() == 0) return;
  const auto a = extent(out), b = extent(array);
  if (a.first < b.second && b.first < a.second)
    raise("InputError", std::string(name) + " overlaps " + other + "; expected memory of its own");
}

// ---- the call

class Call {
 public:
  // The first of `arrays` that is not None decides on the device, and on the stream when `stream` is None.
  Call(const py::object& stream, std::initializer_list<std::pair<const char*, const py::object*>> arrays) {
    int device = -1;
    std::optional<cudaStream_t> chosen = stream_of(stream);
    for (const auto& [name, array] : arrays) {
      if (array->is_none() || PyBool_Check(array->ptr())) continue;
      if (device < 0) device = device_of(name, *array);
      if (!chosen) chosen = current_stream(*array);
    }
    if (device < 0) check(cudaGetDevice(&device), "cudaGetDevice");
    enter(device, chosen, stream);
  }
  Call(const py::object& stream, int device) { enter(device, stream_of(stream), stream); }

  int device() const { return device_; }

  // An array to read. The producer's work on it is in front of ours afterwards.
  const DeviceArray& input(const char* name, const py::object& object) { return taken(name, object); }

  const DeviceArray* optional_input(const char* name, const py::object& object) {
    return object.is_none() ? nullptr : &taken(name, object);
  }

  // The array as one of ours, with its work on our stream.
  py::object adopt(const char* name, const py::object& object) {
    DeviceArray array = taken(name, object);
    array.stream = stream_;
    return py::cast(std::move(array));
  }

  // An array of the user's to write.
  DeviceArray& written(const char* name, const py::object& object) {
    DeviceArray& out = taken(name, object);
    if (out.read_only) raise("InputError", std::string(name) + " is read-only; expected an array to write to");
    return out;
  }

  void result(const py::object& object) { results_.push_back(object); }

  // An array to write: `object`, or a new one when it is None. Both have these strides.
  DeviceArray& output(const char* name, const py::object& object, ElementType type, const Shape& shape,
                      const Shape& strides, const char* layout = "C order") {
    if (object.is_none()) {
      DeviceArray& made = arrays_.emplace_back();
      made.type = type;
      made.shape = shape;
      made.strides = strides;
      made.device = device_;
      made.stream = stream_;
      made.owner = stream_kept_;
      made.memory = std::make_shared<DeviceMemory>(static_cast<std::size_t>(made.bytes()), device_, stream_);
      made.data = made.memory->data();
      results_.push_back(py::cast(made));
      return made;
    }
    DeviceArray& out = written(name, object);
    expect_type(name, out, {type});
    expect_shape(name, out, shape, "the shape of the result");
    expect_strides(name, out, strides, layout);
    result(object);
    return out;
  }
  DeviceArray& output(const char* name, const py::object& object, ElementType type, const Shape& shape) {
    return output(name, object, type, shape, c_order(shape));
  }

  // Memory for the time of the call, aligned for anything; null for 0 bytes.
  void* workspace(std::int64_t bytes) {
    if (bytes <= 0) return nullptr;
    workspaces_.push_back(std::make_unique<DeviceMemory>(static_cast<std::size_t>(bytes), device_, stream_));
    return workspaces_.back()->data();
  }

  // A copy of host memory for the time of the call. The host memory may go as soon as this returns.
  void* upload(const void* host, std::int64_t bytes) {
    expect_no_capture();
    void* to = workspace(bytes);
    if (!to) return nullptr;
    check(cudaMemcpyAsync(to, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    check(wait_if_pinned(host, stream_), "copy from pinned memory");
    return to;
  }

  // A graph would read host memory at every replay, when it may be gone.
  void expect_no_capture() const {
    cudaStreamCaptureStatus status{};
    check(cudaStreamIsCapturing(stream_, &status), "cudaStreamIsCapturing");
    if (status != cudaStreamCaptureStatusNone)
      raise("InputError", "an array in CPU memory cannot be recorded into a CUDA graph; expected all of them in GPU memory, copied there before");
  }

  // Launches, and gives the outputs back in the order in which they were asked for.
  template <class Launch>
  py::object run(Launch launch) {
    Status status;
    {
      const py::gil_scoped_release unlocked;
      status = launch(stream_);
    }
    check(status);
    // Arrays that belong to other streams: what comes there next comes after this.
    for (const cudaStream_t other : others_) order(stream_, other);
    if (results_.empty()) return py::none();
    if (results_.size() == 1) return results_[0];
    py::tuple all(results_.size());
    for (std::size_t i = 0; i < results_.size(); ++i) all[i] = results_[i];
    return all;
  }

 private:
  void enter(int device, std::optional<cudaStream_t> chosen, const py::object& stream) {
    device_ = device;
    scope_.emplace(device);
    stream_ = chosen.value_or(cudaStreamLegacy);
    if (!PyIndex_Check(stream.ptr())) stream_kept_ = keep(stream);  // an object that may end the stream with itself
  }

  static int device_of(const char* name, const py::object& object) {
    if (py::isinstance<DeviceArray>(object)) return object.cast<const DeviceArray&>().device;
    if (py::hasattr(object, "__dlpack_device__")) return dlpack_device(name, object).second;
    if (py::hasattr(object, "__cuda_array_interface__"))
      return from_interface(name, object, std::nullopt).device;  // -1 for an array of nothing
    raise("InputError", std::string(name) + " is a " + Py_TYPE(object.ptr())->tp_name +
                            "; expected an array in GPU memory, with __dlpack__ or __cuda_array_interface__");
  }

  DeviceArray& taken(const char* name, const py::object& object) {
    const int device = device_of(name, object);
    if (device >= 0 && device != device_)
      raise("DeviceError", std::string(name) + " is on GPU " + std::to_string(device) + ", others on GPU " +
                               std::to_string(device_) + "; expected all of them on one");
    DeviceArray& array = arrays_.emplace_back(
        py::isinstance<DeviceArray>(object)         ? object.cast<const DeviceArray&>()
        : py::hasattr(object, "__dlpack_device__") ? from_dlpack(name, object, stream_)
                                                    : from_interface(name, object, stream_));
    if (array.stream && *array.stream != stream_ && array.size() > 0) {
      order(*array.stream, stream_);
      others_.push_back(*array.stream);
    }
    if (reinterpret_cast<std::uintptr_t>(array.data) % static_cast<std::uintptr_t>(array.type.bytes()))
      raise("InputError", std::string(name) + " begins at " + text(array.data) + ", which is not aligned for " + array.type.name());
    return array;
  }

  // Destroyed from the last on: temporary memory is freed while its device is current and its stream kept.
  int device_ = 0;
  cudaStream_t stream_{};
  std::shared_ptr<void> stream_kept_;
  std::optional<DeviceScope> scope_;
  std::deque<DeviceArray> arrays_;  // does not move what references point to
  std::vector<std::unique_ptr<DeviceMemory>> workspaces_;
  std::vector<cudaStream_t> others_;
  std::vector<py::object> results_;
};

template <class T>
using Host = py::array_t<T, py::array::c_style>;

// Numbers that the CPU (a NumPy array, checked by cuda.py) or the GPU (vouched for by the user) holds.
template <class T>
const T* anywhere(Call& call, const char* name, const py::object& object, ElementType type, const Shape& shape) {
  if (py::isinstance<Host<T>>(object)) {
    const auto host = py::cast<Host<T>>(object);
    if (Shape(host.shape(), host.shape() + host.ndim()) != shape) raise("InputError", std::string(name) + " has a wrong shape");
    return static_cast<const T*>(call.upload(host.data(), host.nbytes()));
  }
  const DeviceArray& array = call.input(name, object);
  expect_type(name, array, {type});
  expect_shape(name, array, shape, "a row for each patch");
  expect_strides(name, array, c_order(shape), "C order");
  return static_cast<const T*>(array.data);
}

}  // namespace ldf
