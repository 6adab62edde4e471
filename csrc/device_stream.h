// Streams, staging memory and recorded work: what an engine needs that computes beside the host, without torch.
// pyldfusion/engines/device.py is the caller. Part of the bindings: needs pybind11.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <string>

#include "device_call.h"

namespace ldf {

// A point in a stream that the host can wait for, from any thread.
class StreamEvent {
 public:
  StreamEvent(int device, cudaStream_t stream) {
    const DeviceScope current(device);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    const cudaError_t code = cudaEventRecord(event_, stream);
    if (code == cudaSuccess) return;
    cudaEventDestroy(event_);
    raise_cuda("cudaEventRecord", code);
  }
  StreamEvent(const StreamEvent&) = delete;
  StreamEvent& operator=(const StreamEvent&) = delete;
  ~StreamEvent() { cudaEventDestroy(event_); }

  void synchronize() const {
    cudaError_t code;
    {
      const py::gil_scoped_release unlocked;
      code = cudaEventSynchronize(event_);
    }
    check(code, "cudaEventSynchronize");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Work that was recorded, to be done again with one launch.
class StreamGraph {
 public:
  StreamGraph(int device, cudaGraph_t graph) : device_(device) {
    const cudaError_t code = cudaGraphInstantiateWithFlags(&ready_, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiateWithFlags");
  }
  StreamGraph(const StreamGraph&) = delete;
  StreamGraph& operator=(const StreamGraph&) = delete;
  ~StreamGraph() { cudaGraphExecDestroy(ready_); }

  void launch(const py::object& stream) const {
    const DeviceScope current(device_);
    check(cudaGraphLaunch(ready_, stream_of(stream).value_or(cudaStreamLegacy)), "cudaGraphLaunch");
  }

 private:
  int device_;
  cudaGraphExec_t ready_ = nullptr;
};

// A stream of our own that waits for no other unless told to.
class OwnStream {
 public:
  explicit OwnStream(int device) : device_(device) {
    const DeviceScope current(device);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  ~OwnStream() { cudaStreamDestroy(stream_); }  // what it holds is still done

  int device() const { return device_; }
  std::intptr_t handle() const { return handle_of(stream_); }

  void wait(const py::object& other) const {
    const DeviceScope current(device_);
    order(stream_of(other).value_or(cudaStreamLegacy), stream_);
  }
  void before(const py::object& other) const {
    const DeviceScope current(device_);
    order(stream_, stream_of(other).value_or(cudaStreamLegacy));
  }
  std::unique_ptr<StreamEvent> mark() const { return std::make_unique<StreamEvent>(device_, stream_); }

  void synchronize() const {
    cudaError_t code;
    {
      const py::gil_scoped_release unlocked;
      code = cudaStreamSynchronize(stream_);
    }
    check(code, "cudaStreamSynchronize");
  }

  // Bytes from one address to another, on the host or the device; host memory is pinned.
  void copy(std::uintptr_t to, std::uintptr_t from, std::size_t bytes) const {
    const DeviceScope current(device_);
    check(cudaMemcpyAsync(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, cudaMemcpyDefault, stream_),
          "cudaMemcpyAsync");
  }

  // What `work` puts on this stream, without doing it. What other threads do meanwhile is no error.
  std::unique_ptr<StreamGraph> record(const py::function& work) const {
    const DeviceScope current(device_);
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    return std::make_unique<StreamGraph>(device_, graph);
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

// Host memory that the device reads and writes by itself, as uint8 [bytes].
inline py::array_t<std::uint8_t> pinned(std::size_t bytes, int device) {
  if (bytes == 0) return py::array_t<std::uint8_t>(0);
  const DeviceScope current(device);
  void* data = nullptr;
  check(cudaMallocHost(&data, bytes), "cudaMallocHost");
  const py::capsule owner(data, [](void* gone) { cudaFreeHost(gone); });
  return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(bytes), static_cast<std::uint8_t*>(data), owner);
}

inline py::object empty(const Shape& shape, int device, const py::object& stream) {
  Call call(stream, device);
  call.output("out", py::none(), kU8, shape);
  return call.run([](Stream) { return Status{}; });
}

inline py::tuple memory(int device) {
  const DeviceScope current(device);
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return py::make_tuple(free, total);
}

inline void bind_streams(py::module_& m) {
  py::class_<StreamEvent>(m, "Event", py::module_local()).def("synchronize", &StreamEvent::synchronize);
  py::class_<StreamGraph>(m, "Graph", py::module_local()).def("launch", &StreamGraph::launch, py::arg("stream"));
  py::class_<OwnStream>(m, "Stream", "A CUDA stream of our own.", py::module_local())
      .def(py::init<int>(), py::arg("device"))
      .def_property_readonly("device", &OwnStream::device)
      .def_property_readonly("cuda_stream", &OwnStream::handle, "The handle, by the name that torch gives it.")
      .def("wait", &OwnStream::wait, py::arg("other"), "Later work here begins after what `other` holds now.")
      .def("before", &OwnStream::before, py::arg("other"), "Later work of `other` begins after what is here now.")
      .def("mark", &OwnStream::mark)
      .def("synchronize", &OwnStream::synchronize)
      .def("copy", &OwnStream::copy, py::arg("to"), py::arg("source"), py::arg("bytes"))
      .def("record", &OwnStream::record, py::arg("work"));
  m.def("pinned", &pinned, py::arg("bytes"), py::arg("device"));
  m.def("empty", &empty, py::arg("shape"), py::arg("device"), py::arg("stream"));
  m.def("memory", &memory, py::arg("device"));
}

}  // namespace ldf
