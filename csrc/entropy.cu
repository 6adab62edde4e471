#include "entropy.h"

#include "block_sum.cuh"
#include "entropy_math.h"
#include "launch.cuh"

namespace ldf {
namespace {

constexpr int kThreads = kBins;  // one thread a bin when the counts are read
constexpr int kTables = kThreads / 32;

__device__ inline int bin_of_pixel(std::uint8_t value) { return value; }
template <class Float>
__device__ inline int bin_of_pixel(Float value) {
  return bin_of(value);
}

// One block a patch. Each warp counts in a table of its own, so that equal pixels of different warps do not meet.
template <class T>
__global__ void __launch_bounds__(kThreads) entropy_kernel(const EntropyParams p) {
  __shared__ unsigned tables[kTables][kBins + 1];
  __shared__ double scratch[32];
  const std::int64_t patch = blockIdx.x;
  const char* first = static_cast<const char*>(p.pixels);
  std::int64_t height = p.height, width = p.width;
  if (p.boxes) {
    const std::int32_t* box = p.boxes + 4 * patch;
    first += box[1] * p.stride_y + box[0] * p.stride_x;
    width = box[2];
    height = box[3];
  } else {
    first += patch * p.stride_n;
  }

  for (int i = threadIdx.x; i < kTables * (kBins + 1); i += kThreads) tables[0][i] = 0;
  __syncthreads();
  unsigned* table = tables[threadIdx.x / 32];
  for (std::int64_t i = threadIdx.x; i < height * width; i += kThreads) {
    const char* pixel = first + (i / width) * p.stride_y + (i % width) * p.stride_x;
    atomicAdd(&table[bin_of_pixel(*reinterpret_cast<const T*>(pixel))], 1u);
  }
  __syncthreads();

  double count = 0.0;
  for (int t = 0; t < kTables; ++t) count += tables[t][threadIdx.x];
  const double total = block_sum(count, scratch);
  const double mine = count > 0.0 ? weighted_bits(count, log2(count), log2(total)) : 0.0;
  const double sum = block_sum(mine, scratch);
  if (threadIdx.x == 0) p.bits[patch] = total > 0.0 ? sum / total : 0.0;
}

}  // namespace

std::int64_t entropy_workspace_bytes(const EntropyParams&) { return 0; }

Status entropy_cuda(const EntropyParams& params, void*, Stream stream) {
  if (params.count > 0x7fffffff) return {cudaErrorInvalidValue, "entropy", "entropy_cuda (patches)"};
  const auto blocks = static_cast<unsigned>(params.count);
  switch (params.type) {
    case Pixel::u8: return launch("entropy", entropy_kernel<std::uint8_t>, blocks, kThreads, 0, stream, params);
    case Pixel::f32: return launch("entropy", entropy_kernel<float>, blocks, kThreads, 0, stream, params);
    case Pixel::f64: return launch("entropy", entropy_kernel<double>, blocks, kThreads, 0, stream, params);
    case Pixel::f16:
    case Pixel::bf16: break;
  }
  return {cudaErrorInvalidValue, "entropy", "entropy_cuda (pixel type)"};
}

}  // namespace ldf
