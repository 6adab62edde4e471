// GPU memory that belongs to a stream, and the order of work between streams. The runtime's failures become
// pyldfusion.errors.CudaError. Part of the bindings: needs pybind11.
#pragma once

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "status.h"

namespace ldf {

// Raises pyldfusion.errors.<type>(message).
[[noreturn]] inline void raise(const char* type, const std::string& message) {
  const pybind11::object error = pybind11::module_::import("pyldfusion.errors").attr(type);
  PyErr_SetString(error.ptr(), message.c_str());
  throw pybind11::error_already_set();
}

[[noreturn]] inline void raise_cuda(const std::string& where, cudaError_t code) {
  cudaGetLastError();  // not to be found by the next library
  raise("CudaError", where + " failed: " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")");
}

inline void check(cudaError_t code, const char* call) {
  if (code != cudaSuccess) raise_cuda(call, code);
}

inline void check(const Status& status) {
  if (!status.ok())
    raise_cuda(std::string("kernel \"") + status.kernel + "\": " + status.call, static_cast<cudaError_t>(status.code));
}

// After a copy from host memory that was asked for on a stream. From pageable memory it is copied away when the call
// returns; from pinned memory it is read later, by when its owner may have changed it.
inline cudaError_t wait_if_pinned(const void* host, cudaStream_t stream) {
  cudaPointerAttributes at{};
  const cudaError_t code = cudaPointerGetAttributes(&at, host);
  return code != cudaSuccess || at.type != cudaMemoryTypeHost ? code : cudaStreamSynchronize(stream);
}

// Makes a device the current one for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = before_ != device;
  }
  ~DeviceScope() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// What `first` holds now comes before what `then` gets from now on; nobody waits on the CPU. Both of the current device.
inline void order(cudaStream_t first, cudaStream_t then) {
  if (first == then) return;
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  cudaError_t code = cudaEventRecord(event, first);
  if (code == cudaSuccess) code = cudaStreamWaitEvent(then, event, 0);
  cudaEventDestroy(event);  // freed when it has happened
  check(code, "ordering two streams");
}

// The pool that results and workspaces of a GPU come from; null where the driver has none (some virtual GPUs). Our own,
// because the default pool hands freed memory back to the system whenever somebody waits for the GPU, and changing that
// would change it for every library in the process.
inline cudaMemPool_t memory_pool(int device) {
  constexpr std::uint64_t kKeep = 256u << 20;  // bytes that stay with us between calls
  static std::mutex mutex;
  static std::map<int, cudaMemPool_t> pools;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = pools.find(device);
  if (found != pools.end()) return found->second;
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device), "cudaDeviceGetAttribute");
  cudaMemPool_t pool = nullptr;
  if (supported) {
    cudaMemPoolProps props{};
    props.allocType = cudaMemAllocationTypePinned;
    props.location = {cudaMemLocationTypeDevice, device};
    check(cudaMemPoolCreate(&pool, &props), "cudaMemPoolCreate");
    std::uint64_t keep = kKeep;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
  }
  pools[device] = pool;
  return pool;
}

// Memory allocated on a stream and freed there, after what that stream holds by then.
//
// A consumer on another stream can tell us only that it begins. So that memory is not reused under it: work on the
// legacy stream is waited for by the owning stream; for any other, which may no longer exist, the device is waited for.
class DeviceMemory {
 public:
  DeviceMemory(std::size_t bytes, int device, cudaStream_t stream) : device_(device), stream_(stream) {
    if (!bytes) return;
    const DeviceScope current(device);
    const cudaMemPool_t pool = memory_pool(device);
    pooled_ = pool != nullptr;
    const cudaError_t code =
        pooled_ ? cudaMallocFromPoolAsync(&data_, bytes, pool, stream) : cudaMalloc(&data_, bytes);
    if (code != cudaSuccess)
      raise_cuda("allocating " + std::to_string(bytes) + " bytes on GPU " + std::to_string(device), code);
    others_ = stream == cudaStreamPerThread;  // the thread that frees may be another one
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // From any thread, with or without the GIL. Memory that might still be in use is rather lost than given to others.
  ~DeviceMemory() {
    int before = 0;
    if (!data_ || cudaGetDevice(&before) != cudaSuccess) return;  // an error here: the process is ending
    if (before != device_) cudaSetDevice(device_);
    const bool done = !pooled_ || others_ ? device_finished() : !legacy_ || legacy_comes_first();
    if (done && pooled_) cudaFreeAsync(data_, stream_);
    if (done && !pooled_) cudaFree(data_);
    if (before != device_) cudaSetDevice(before);
    cudaGetLastError();
  }

  void* data() const { return data_; }

  // Somebody is about to use the memory on `stream`, or on a stream we do not know.
  void used_on(cudaStream_t stream) {
    if (stream == stream_) return;
    (stream == cudaStreamLegacy ? legacy_ : others_) = true;
  }
  void used_anywhere() { others_ = true; }

 private:
  static bool device_finished() {
    if (!Py_IsInitialized() || !PyGILState_Check()) return cudaDeviceSynchronize() == cudaSuccess;
    const pybind11::gil_scoped_release unlocked;  // a callback on a stream may be waiting for the GIL
    return cudaDeviceSynchronize() == cudaSuccess;
  }
  bool legacy_comes_first() const {
    cudaEvent_t event = nullptr;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) return false;
    const bool ordered = cudaEventRecord(event, cudaStreamLegacy) == cudaSuccess &&
                         cudaStreamWaitEvent(stream_, event, 0) == cudaSuccess;
    cudaEventDestroy(event);
    return ordered;
  }

  void* data_ = nullptr;
  int device_;
  cudaStream_t stream_;
  bool pooled_ = false;
  std::atomic<bool> legacy_{false}, others_{false};
};

}  // namespace ldf
