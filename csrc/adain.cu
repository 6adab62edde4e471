#include "adain.h"

#include "adain_math.h"
#include "block_sum.cuh"
#include "launch.cuh"

namespace ldf {
namespace {

constexpr int kThreads = 512;

// One block a plane, three passes: mean, variance, output.
__global__ void __launch_bounds__(kThreads) adain_kernel(const AdainParams p) {
  __shared__ float scratch[32];
  const std::int64_t pixels = p.h * p.w;
  const std::int64_t plane = blockIdx.x;
  const float* x = p.x + (plane / p.c) * p.stride_n + (plane % p.c) * p.stride_c;
  const auto at = [&](std::int64_t i) { return x[(i / p.w) * p.stride_h + (i % p.w) * p.stride_w]; };

  // Sums are of differences to the first value, a member of the plane, so that floats keep their digits.
  const float shift = x[0];
  float sum = 0.0f;
  for (std::int64_t i = threadIdx.x; i < pixels; i += kThreads) sum += at(i) - shift;
  const double mean = static_cast<double>(shift) +
                      static_cast<double>(block_sum(sum, scratch)) / static_cast<double>(pixels);
  const AdainMap centre = adain_map(mean, 1.0, 1.0f, 0.0f, 0.0);
  float squares = 0.0f;
  for (std::int64_t i = threadIdx.x; i < pixels; i += kThreads) {
    const float d = (at(i) - centre.mean_high) - centre.mean_low;
    squares += d * d;
  }
  const double variance = static_cast<double>(block_sum(squares, scratch)) / static_cast<double>(pixels);
  const AdainMap map = adain_map(mean, variance, p.weight[plane], p.bias[plane], p.eps);
  float* y = p.y + plane * pixels;
  for (std::int64_t i = threadIdx.x; i < pixels; i += kThreads) y[i] = adain_apply(at(i), map);
}

}  // namespace

Status adain_cuda(const AdainParams& params, Stream stream) {
  const std::int64_t planes = params.n * params.c;
  if (planes > 0x7fffffff) return {cudaErrorInvalidValue, "adain", "adain_cuda (planes)"};
  return launch("adain", adain_kernel, static_cast<unsigned>(planes), kThreads, 0, stream, params);
}

}  // namespace ldf
