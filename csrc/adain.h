// Adaptive instance normalisation: every plane of x is normalised by its own mean and deviation, then takes the
// scale and shift of a style:
//
//   y[n, c] = (x[n, c] - mean) / sqrt(variance + eps) * weight[n, c] + bias[n, c]
//
// with mean and biased variance over H x W, in two passes so that a mean far above the spread does no harm.
// NaN or infinity spoil their own plane only. (Huang and Belongie, ICCV 2017.)
#pragma once

#include <cstdint>

#include "common.h"
#include "status.h"

namespace ldf {

struct AdainParams {
  const float* x;         // [N, C, H, W]
  std::int64_t n, c, h, w;  // h and w > 0
  std::int64_t stride_n, stride_c, stride_h, stride_w;  // of x, in elements, any sign
  const float* weight;    // [N, C], contiguous
  const float* bias;      // [N, C], contiguous
  double eps;             // > 0
  float* y;               // [N, C, H, W], contiguous, written; must not overlap x
};

// On at most `threads` threads of this CPU.
void adain_cpu(const AdainParams& params, int threads);

// The same on a GPU: all pointers are the device's; runs after what `stream` holds. Statistics are kept in float.
// The status says whether the launch was accepted, not how it ended.
Status adain_cuda(const AdainParams& params, Stream stream);

}  // namespace ldf
