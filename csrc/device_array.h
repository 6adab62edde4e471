// Arrays in GPU memory that come from and go to other libraries without a copy: DLPack (`__dlpack__`, versions 0 and 1)
// and `__cuda_array_interface__` (version 3). Part of the bindings: needs pybind11.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "device_memory.h"
#include "dlpack.h"

namespace ldf {

namespace py = pybind11;

// In the CPU emulation (tests/host_cuda) host memory stands for the device's.
#ifdef LDF_HOST_CUDA
constexpr bool kEmulated = true;
constexpr dlpack::DeviceType kDeviceType = dlpack::kCpu;
#else
constexpr bool kEmulated = false;
constexpr dlpack::DeviceType kDeviceType = dlpack::kCuda;
#endif

struct ElementType {
  std::uint8_t code;  // a dlpack::TypeCode
  std::uint8_t bits;

  bool operator==(const ElementType& other) const { return code == other.code && bits == other.bits; }
  std::int64_t bytes() const { return bits / 8; }
  std::string name() const {
    switch (code) {
      case dlpack::kBool: return "bool";
      case dlpack::kInt: return "int" + std::to_string(bits);
      case dlpack::kUInt: return "uint" + std::to_string(bits);
      case dlpack::kFloat: return "float" + std::to_string(bits);
      case dlpack::kBfloat: return "bfloat" + std::to_string(bits);
      default: return "type " + std::to_string(code) + " of DLPack, " + std::to_string(bits) + " bits";
    }
  }
};

constexpr ElementType kU8{dlpack::kUInt, 8}, kU16{dlpack::kUInt, 16}, kU32{dlpack::kUInt, 32}, kI32{dlpack::kInt, 32},
    kF16{dlpack::kFloat, 16}, kBf16{dlpack::kBfloat, 16}, kF32{dlpack::kFloat, 32}, kF64{dlpack::kFloat, 64};

inline ElementType element_type(const std::string& name) {
  for (const ElementType type : {kU8, kU16, kU32, kI32, kF16, kBf16, kF32, kF64})
    if (type.name() == name) return type;
  raise("DtypeError", "element type " + name + "; expected uint8, uint16, uint32, int32, float16, bfloat16, float32 or float64");
}

using Shape = std::vector<std::int64_t>;

inline std::string text(const Shape& shape) {
  std::string all = "[";
  for (const std::int64_t side : shape) all += (all.size() > 1 ? "," : "") + std::to_string(side);
  return all + "]";
}

// A pointer as users read it.
inline std::string text(const void* pointer) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "0x%llx", static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(pointer)));
  return digits;
}

// A dense array in memory, and who keeps that memory.
struct DeviceArray {
  void* data = nullptr;  // of element 0; null only without elements
  ElementType type{};
  Shape shape;
  Shape strides;  // in elements
  int device = 0;
  bool read_only = false;
  // The stream whose work comes before and after ours on this array; none for memory whose user keeps the order.
  std::optional<cudaStream_t> stream;
  std::shared_ptr<void> owner;           // keeps another library's memory, or the stream of our own: so declared before it
  std::shared_ptr<DeviceMemory> memory;  // ours

  std::int64_t size() const {
    std::int64_t product = 1;
    for (const std::int64_t side : shape) product *= side;
    return product;
  }
  std::int64_t bytes() const { return size() * type.bytes(); }
};

inline Shape c_order(const Shape& shape) {
  Shape strides(shape.size());
  std::int64_t step = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = step;
    step *= shape[axis] > 0 ? shape[axis] : 1;
  }
  return strides;
}

// A Python object kept alive by C++ that may let go of it in any thread.
inline std::shared_ptr<void> keep(const py::object& object) {
  if (object.is_none()) return nullptr;
  return {object.inc_ref().ptr(), [](void* kept) {
            if (!Py_IsInitialized()) return;  // the interpreter took everything with it
            const py::gil_scoped_acquire locked;
            Py_DECREF(static_cast<PyObject*>(kept));
          }};
}

// ---- streams

inline cudaStream_t stream_of(std::intptr_t handle) {
  if (handle < 0) raise("InputError", "stream is " + std::to_string(handle) + "; expected a CUDA stream's handle");
  return handle == 0 ? cudaStreamLegacy : reinterpret_cast<cudaStream_t>(handle);  // 0 is the legacy stream's old name
}

inline std::intptr_t handle_of(cudaStream_t stream) { return reinterpret_cast<std::intptr_t>(stream); }

// The `stream` argument of a function: a handle, or a stream of torch, CuPy or cuda.core.
inline std::optional<cudaStream_t> stream_of(const py::object& stream) {
  if (stream.is_none()) return std::nullopt;
  py::object handle = stream;
  if (py::hasattr(stream, "__cuda_stream__")) {
    const py::object answer = stream.attr("__cuda_stream__");
    handle = py::tuple(PyCallable_Check(answer.ptr()) ? answer() : answer)[1];
  } else {
    for (const char* name : {"cuda_stream", "ptr"})
      if (py::hasattr(stream, name)) handle = stream.attr(name);
  }
  if (!PyIndex_Check(handle.ptr()) || PyBool_Check(handle.ptr()))
    raise("InputError", "stream is a " + std::string(Py_TYPE(stream.ptr())->tp_name) +
                            "; expected a stream of torch or CuPy, or a CUDA stream's handle as an int");
  return stream_of(py::cast<std::intptr_t>(py::int_(handle)));
}

// The stream that the library of `array` works on now, where it says so.
inline std::optional<cudaStream_t> current_stream(const py::object& array) {
  if (py::isinstance<DeviceArray>(array)) return array.cast<const DeviceArray&>().stream;
  // torch says it only when asked; whoever has a tensor has imported it
  const py::object torch = py::module_::import("sys").attr("modules").attr("get")("torch");
  if (!torch.is_none() && py::isinstance(array, torch.attr("Tensor"))) {
    if (!py::cast<bool>(array.attr("is_cuda"))) return std::nullopt;
    const py::object stream = torch.attr("cuda").attr("current_stream")(array.attr("device"));
    return stream_of(py::cast<std::intptr_t>(stream.attr("cuda_stream")));
  }
  if (!py::hasattr(array, "__cuda_array_interface__")) return std::nullopt;
  const py::dict interface = array.attr("__cuda_array_interface__");
  if (!interface.contains("stream") || interface["stream"].is_none()) return std::nullopt;
  return stream_of(py::cast<std::intptr_t>(interface["stream"]));
}

// ---- from other libraries

// What is wrong with a pointer, as far as the driver knows; `device` becomes the one it belongs to.
inline void check_pointer(const std::string& name, const void* data, int* device) {
  if (!data) raise("InputError", name + " has a null pointer, but elements");
  cudaPointerAttributes at{};
  check(cudaPointerGetAttributes(&at, data), "cudaPointerGetAttributes");
  if (at.type == cudaMemoryTypeUnregistered)
    raise("InputError", name + " points to " + text(data) + ", which is no memory of a GPU: freed, or the CPU's");
  if (at.type == cudaMemoryTypeHost)
    raise("DeviceError", name + " is in pinned CPU memory; expected GPU memory. Copy it there first");
  if (at.type == cudaMemoryTypeDevice && *device >= 0 && at.device != *device)
    raise("DeviceError", name + " says it is on GPU " + std::to_string(*device) + ", but its pointer belongs to GPU " +
                             std::to_string(at.device));
  if (*device < 0) *device = at.device;
}

inline bool is_device(int type) {
  return type == dlpack::kCuda || type == dlpack::kCudaManaged || (kEmulated && type == dlpack::kCpu);
}

inline std::pair<int, int> dlpack_device(const std::string& name, const py::object& object) {
  const auto device = py::cast<std::pair<int, int>>(object.attr("__dlpack_device__")());
  if (is_device(device.first)) return device;
  const std::string where = device.first == dlpack::kCpu        ? "in CPU memory"
                            : device.first == dlpack::kCudaHost ? "in pinned CPU memory"
                                                                : "on a device of DLPack's type " + std::to_string(device.first);
  raise("DeviceError", name + " is " + where + "; expected GPU memory: copy it there first, or use the functions for the CPU");
}

inline DeviceArray from_tensor(const std::string& name, const dlpack::Tensor& tensor, bool read_only,
                               std::shared_ptr<void> owner) {
  if (!is_device(tensor.device.type))
    raise("DeviceError", name + " was exported from DLPack's device type " + std::to_string(tensor.device.type) +
                             "; expected GPU memory");
  DeviceArray array;
  array.type = {tensor.dtype.code, tensor.dtype.bits};
  if (tensor.dtype.lanes != 1 || tensor.dtype.bits % 8 || tensor.dtype.bits == 0 || tensor.dtype.bits > 64)
    raise("DtypeError", name + " has elements of " + std::to_string(tensor.dtype.lanes) + " x " +
                            std::to_string(tensor.dtype.bits) + " bits; expected numbers of 8, 16, 32 or 64");
  array.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  array.strides = tensor.strides ? Shape(tensor.strides, tensor.strides + tensor.ndim) : c_order(array.shape);
  array.device = tensor.device.id;
  array.read_only = read_only;
  array.owner = std::move(owner);
  if (array.size() > 0) {
    if (!tensor.data) raise("InputError", name + " has a null pointer, but elements");
    array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    check_pointer(name, array.data, &array.device);
  }
  return array;
}

// Takes the structure out of a capsule; it is given back (its deleter called) with the last copy of the result.
template <class T>
std::shared_ptr<T> take(const py::capsule& capsule) {
  auto* managed = static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), T::kName));
  if (!managed || PyCapsule_SetName(capsule.ptr(), T::kUsedName) != 0) throw py::error_already_set();
  return {managed, [](T* gone) {
            if (gone->deleter) gone->deleter(gone);
          }};
}

// Work of the producer's is in front of `stream` afterwards; the producer sees to that.
inline DeviceArray from_dlpack(const std::string& name, const py::object& object, cudaStream_t stream) {
  const int type = dlpack_device(name, object).first;
  py::dict options;
  options["stream"] = type == dlpack::kCpu ? py::object(py::none()) : py::object(py::int_(handle_of(stream)));
  options["max_version"] = py::make_tuple(dlpack::ManagedVersioned::kMajor, 0);
  const py::object exporter = object.attr("__dlpack__");
  py::object capsule;
  try {
    try {
      capsule = exporter(**options);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;  // a producer from before version 1 knows no max_version
      capsule = exporter(py::arg("stream") = options["stream"]);
    }
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_BufferError) && !error.matches(PyExc_RuntimeError)) throw;
    raise("InputError", name + " cannot be shared: " + py::str(error.value()).cast<std::string>());
  }
  if (PyCapsule_IsValid(capsule.ptr(), dlpack::ManagedVersioned::kName)) {
    auto managed = take<dlpack::ManagedVersioned>(capsule);
    if (managed->version.major != dlpack::ManagedVersioned::kMajor)
      raise("InputError", name + " was exported as DLPack " + std::to_string(managed->version.major) + "; expected 1");
    const bool read_only = managed->flags & dlpack::ManagedVersioned::kReadOnly;
    return from_tensor(name, managed->tensor, read_only, managed);
  }
  if (!PyCapsule_IsValid(capsule.ptr(), dlpack::Managed::kName))
    raise("InputError", name + ".__dlpack__() gave no DLPack capsule, or one that was used before");
  auto managed = take<dlpack::Managed>(capsule);
  return from_tensor(name, managed->tensor, false, managed);
}

// The producer's work is put in front of `stream`, of the current device, where there is one. device: -1 without elements.
inline DeviceArray from_interface(const std::string& name, const py::object& object,
                                  std::optional<cudaStream_t> stream) {
  const py::dict interface = object.attr("__cuda_array_interface__");
  const auto need = [&](const char* key) -> py::object {
    if (!interface.contains(key)) raise("InputError", name + ".__cuda_array_interface__ has no \"" + std::string(key) + "\"");
    return interface[key];
  };
  const auto optional = [&](const char* key) -> py::object {
    return interface.contains(key) ? py::object(interface[key]) : py::object(py::none());
  };
  if (!optional("mask").is_none()) raise("InputError", name + " has a mask; expected an array without");
  const auto typestr = need("typestr").cast<std::string>();
  DeviceArray array;
  const char kind = typestr.size() > 2 ? typestr[1] : '?';
  const int bytes = typestr.size() == 3 ? typestr[2] - '0' : 0;
  const int code = kind == 'u' ? dlpack::kUInt : kind == 'i' ? dlpack::kInt : kind == 'f' ? dlpack::kFloat : kind == 'b' ? dlpack::kBool : -1;
  if (code < 0 || bytes < 1 || bytes > 8 || (typestr[0] == '>' && bytes > 1))
    raise("DtypeError", name + " has elements of type \"" + typestr + "\"; expected numbers in the machine's byte order");
  array.type = {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * bytes)};
  array.shape = need("shape").cast<Shape>();
  const py::object strides = optional("strides");
  if (strides.is_none()) {
    array.strides = c_order(array.shape);
  } else {
    array.strides = strides.cast<Shape>();
    if (array.strides.size() != array.shape.size())
      raise("InputError", name + " has shape " + text(array.shape) + ", but " + std::to_string(array.strides.size()) + " strides");
    for (std::int64_t& step : array.strides) {
      if (step % bytes) raise("InputError", name + " has a stride of " + std::to_string(step) + " bytes, elements have " + std::to_string(bytes));
      step /= bytes;
    }
  }
  const auto data = need("data").cast<std::pair<std::uintptr_t, bool>>();
  array.data = reinterpret_cast<void*>(data.first);
  array.read_only = data.second;
  array.device = -1;
  if (array.size() > 0) check_pointer(name, array.data, &array.device);
  const py::object producer = optional("stream");
  if (stream && !producer.is_none() && array.size() > 0) order(stream_of(producer.cast<std::intptr_t>()), *stream);
  array.owner = keep(object);
  return array;
}

// ---- to other libraries

namespace detail {

template <class T>
struct Exported {
  DeviceArray array;  // keeps the memory
  T managed{};
};

template <class T>
T* export_tensor(const DeviceArray& array) {
  auto* exported = new Exported<T>{array, {}};
  DeviceArray& own = exported->array;
  T& managed = exported->managed;
  managed.tensor = {own.data,
                    {kDeviceType, own.device},
                    static_cast<std::int32_t>(own.shape.size()),
                    {own.type.code, own.type.bits, 1},
                    own.shape.data(),
                    own.strides.data(),
                    0};
  managed.context = exported;
  managed.deleter = [](T* gone) { delete static_cast<Exported<T>*>(gone->context); };  // needs no GIL
  return &managed;
}

template <class T>
py::object capsule(T* managed) {
  PyObject* made = PyCapsule_New(managed, T::kName, [](PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, T::kName)) return;  // taken: the consumer's now
    auto* unused = static_cast<T*>(PyCapsule_GetPointer(capsule, T::kName));
    unused->deleter(unused);
  });
  if (!made) {
    managed->deleter(managed);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(made);
}

}  // namespace detail

// `__dlpack__` of the array API standard (2023.12).
inline py::object to_dlpack(const DeviceArray& array, const py::object& stream,
                            const std::optional<std::pair<int, int>>& max_version,
                            const std::optional<std::pair<int, int>>& device, const std::optional<bool>& copy) {
  if (device && *device != std::pair<int, int>{kDeviceType, array.device}) {
    PyErr_SetString(PyExc_BufferError, "a DeviceArray is exported on its own device only");
    throw py::error_already_set();
  }
  if (copy.value_or(false)) {
    PyErr_SetString(PyExc_BufferError, "a DeviceArray is exported without a copy only");
    throw py::error_already_set();
  }
  // None is the legacy stream, -1: the consumer keeps the order itself, 0 would be ambiguous
  const std::intptr_t handle = stream.is_none() ? handle_of(cudaStreamLegacy) : stream.cast<std::intptr_t>();
  if (handle == 0 || handle < -1) {
    raise("InputError", "stream is " + std::to_string(handle) + "; expected a stream's handle, 1 for the legacy stream, 2 for the "
                        "thread's own, or -1 to keep the order yourself");
  }
  if (handle == -1) {
    if (array.memory) array.memory->used_anywhere();
  } else {
    if (array.memory) array.memory->used_on(stream_of(handle));
    if (array.stream && array.data) {
      const DeviceScope current(array.device);
      order(*array.stream, stream_of(handle));
    }
  }
  if (max_version && max_version->first >= 1) {
    auto* managed = detail::export_tensor<dlpack::ManagedVersioned>(array);
    managed->version = {dlpack::ManagedVersioned::kMajor, 0};
    managed->flags = array.read_only ? dlpack::ManagedVersioned::kReadOnly : 0;
    return detail::capsule(managed);
  }
  if (array.read_only) {
    PyErr_SetString(PyExc_BufferError, "this array is read-only, which DLPack says only from version 1 on (max_version)");
    throw py::error_already_set();
  }
  return detail::capsule(detail::export_tensor<dlpack::Managed>(array));
}

inline py::dict to_interface(const DeviceArray& array) {
  char kind = 0;
  switch (array.type.code) {
    case dlpack::kUInt: kind = 'u'; break;
    case dlpack::kInt: kind = 'i'; break;
    case dlpack::kFloat: kind = 'f'; break;
    case dlpack::kBool: kind = 'b'; break;
    default: throw py::attribute_error("__cuda_array_interface__ has no name for " + array.type.name() + "; use DLPack");
  }
  if (array.memory) array.memory->used_anywhere();
  const std::string typestr = (array.type.bits > 8 ? "<" : "|") + std::string(1, kind) + std::to_string(array.type.bytes());
  py::tuple shape(array.shape.size()), strides(array.shape.size());
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis) {
    shape[axis] = array.shape[axis];
    strides[axis] = array.strides[axis] * array.type.bytes();
  }
  py::dict interface;
  interface["version"] = 3;
  interface["shape"] = shape;
  interface["typestr"] = typestr;
  interface["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(array.data), array.read_only);
  interface["strides"] = strides;
  interface["stream"] = array.stream ? py::object(py::int_(handle_of(*array.stream))) : py::object(py::none());
  return interface;
}

}  // namespace ldf
