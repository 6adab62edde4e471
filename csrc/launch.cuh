// The one place where kernels are launched: named, checked, and without <<<>>>, so that the same sources also compile
// as plain C++ (tests/host_cuda). Needs CUDA 11.8 or newer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "common.h"
#include "status.h"

namespace ldf {

// Dynamic shared memory that the runtime allows a kernel without asking: 48 KiB less what is static in it, for which
// 8 KiB are left here.
constexpr std::size_t kSharedBytesUnasked = 40 * 1024;

// `code` as a Status. A refusal is also the thread's "last error" until somebody reads it; read here, so that the
// next library on this thread does not find it.
inline Status status_of(cudaError_t code, const char* kernel, const char* call) {
  if (code == cudaSuccess) return {};
  cudaGetLastError();
  return {static_cast<int>(code), kernel, call};
}

// Dynamic shared memory a block of `kernel` may ask for on the current device, in bytes; 0 when that is not known.
template <class... Params>
std::size_t shared_bytes_limit(void (*kernel)(Params...)) {
  int device = 0, most = 0;
  cudaFuncAttributes own{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess ||
      cudaFuncGetAttributes(&own, kernel) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  const auto whole = static_cast<std::size_t>(most);
  return whole > own.sharedSizeBytes ? whole - own.sharedSizeBytes : 0;
}

// Puts kernel(args...) on `stream` of the current device. `name` is what errors call it. An empty grid is no work and
// no error. `shared_bytes` is dynamic shared memory, up to shared_bytes_limit(kernel).
template <class... Params, class... Args>
Status launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes,
              Stream stream, Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
  if (shared_bytes > kSharedBytesUnasked) {
    // Always the whole limit: threads that launch the same kernel with different sizes cannot lower it for each other.
    const std::size_t limit = shared_bytes_limit(kernel);
    if (shared_bytes > limit) return {cudaErrorInvalidConfiguration, name, "launch (shared memory)"};
    const cudaError_t set =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit));
    if (set != cudaSuccess) return status_of(set, name, "cudaFuncSetAttribute");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return status_of(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), name, "cudaLaunchKernelEx");
}

}  // namespace ldf
