// The entropy kernels for tests: host arrays in, host arrays out, through device memory of just their size. Works under
// emulation and, compiled by nvcc, on a GPU.
#include <cuda_runtime.h>

#include <cstdint>

#include "entropy.h"

namespace {

// Device memory for `bytes` bytes, filled from `host` where that is given.
class OnDevice {
 public:
  OnDevice(const void* host, std::int64_t bytes) {
    if (bytes <= 0) return;
    code_ = cudaMalloc(&pointer_, static_cast<std::size_t>(bytes));
    if (!code_ && host) code_ = cudaMemcpy(pointer_, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice);
  }
  ~OnDevice() { cudaFree(pointer_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(pointer_);
  }
  cudaError_t code() const { return code_; }

 private:
  void* pointer_ = nullptr;
  cudaError_t code_ = cudaSuccess;
};

// Runs `kernel(workspace)` and brings back `count` entropies, which it must write all: they are NaN before.
template <class Kernel>
int run(Kernel kernel, std::int64_t workspace_bytes, const OnDevice& bits, double* to, std::int64_t count) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(double);
  if (count > 0 && cudaMemset(bits.as<void>(), 0xff, bytes) != cudaSuccess) return -1;
  const OnDevice workspace(nullptr, workspace_bytes);
  if (workspace.code()) return workspace.code();
  const ldf::Status status = kernel(workspace.as<void>());
  if (!status.ok()) return status.code;
  const cudaError_t ended = cudaDeviceSynchronize();
  return ended ? ended : count > 0 ? cudaMemcpy(to, bits.as<void>(), bytes, cudaMemcpyDeviceToHost) : cudaSuccess;
}

}  // namespace

extern "C" {

const char* t_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

// `bytes` of memory at `memory`, the first pixel `first` bytes into it; shape and strides as EntropyParams has them.
int t_entropy(const void* memory, std::int64_t bytes, std::int64_t first, int type, const std::int64_t* shape,
              const std::int64_t* strides, const std::int32_t* boxes, std::int64_t count, double* to) {
  const OnDevice pixels(memory, bytes), box(boxes, boxes ? count * 16 : 0), bits(nullptr, count * 8);
  if (pixels.code() || box.code() || bits.code()) return -1;
  ldf::EntropyParams p{};
  p.pixels = pixels.as<char>() + first;
  p.type = static_cast<ldf::Pixel>(type);
  p.count = count;
  p.height = shape[0];
  p.width = shape[1];
  p.stride_n = strides[0];
  p.stride_y = strides[1];
  p.stride_x = strides[2];
  p.boxes = boxes ? box.as<std::int32_t>() : nullptr;
  p.bits = bits.as<double>();
  return run([&](void* workspace) { return ldf::entropy_cuda(p, workspace, nullptr); }, ldf::entropy_workspace_bytes(p),
             bits, to, count);
}

int t_entropy_affine(const void* memory, std::int64_t bytes, std::int64_t first, int type, std::int64_t planes,
                     const std::int64_t* strides, const std::int32_t* boxes, const float* maps, std::int64_t patches,
                     int size, double* to) {
  const OnDevice pixels(memory, bytes), box(boxes, patches * 12), map(maps, patches * 24);
  const OnDevice bits(nullptr, patches * planes * 8);
  if (pixels.code() || box.code() || map.code() || bits.code()) return -1;
  ldf::EntropyAffineParams p{};
  p.planes = pixels.as<char>() + first;
  p.type = static_cast<ldf::Pixel>(type);
  p.count = planes;
  p.stride_p = strides[0];
  p.stride_y = strides[1];
  p.stride_x = strides[2];
  p.patches = patches;
  p.boxes = box.as<std::int32_t>();
  p.maps = map.as<float>();
  p.size = size;
  p.bits = bits.as<double>();
  return run([&](void* workspace) { return ldf::entropy_affine_cuda(p, workspace, nullptr); },
             ldf::entropy_affine_workspace_bytes(p), bits, to, patches * planes);
}
}
