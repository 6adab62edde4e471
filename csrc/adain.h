// Adaptive instance normalisation: every plane of x is normalised by its own mean and deviation, then takes the
// scale and shift of a style:
//
//   y[n, c] = (x[n, c] - mean) / sqrt(variance + eps) * weight[n, c] + bias[n, c]
//
// with mean and biased variance over H x W, so computed that a mean far above the spread does no harm. NaN or infinity
// spoil their own plane only. Without weight and bias it is the instance norm. (Huang and Belongie, ICCV 2017.)
#pragma once

#include <cstdint>

#include "common.h"
#include "dtype.h"
#include "status.h"

namespace ldf {

// On the CPU: float, x of any strides.
struct AdainCpuParams {
  const float* x;           // [N, C, H, W]
  std::int64_t n, c, h, w;  // h and w > 0
  std::int64_t stride_n, stride_c, stride_h, stride_w;  // of x, in elements, any sign
  const float* weight;      // [N, C], contiguous
  const float* bias;        // [N, C], contiguous
  double eps;               // > 0
  float* y;                 // [N, C, H, W], contiguous, written; must not overlap x
};

// On at most `threads` threads of this CPU.
void adain_cpu(const AdainCpuParams& params, int threads);

// On a GPU: dense tensors of one type and layout, statistics in float. All pointers are the device's and aligned for
// their type at least; 16-byte aligned ones are faster.
struct AdainParams {
  const void* x;            // [N, C, H, W]
  Dtype type;               // of x, residual and y
  Layout layout;            // of x, residual and y
  std::int64_t n, c, h, w;  // n and c >= 0, h and w > 0
  const float* weight;      // [N, C], or null: 1
  const float* bias;        // [N, C], or null: 0
  bool relu;                // y = max(y, 0) after the map; NaN stays
  const void* residual;     // like y, added after the map, or null; never together with relu; may be y itself
  double eps;               // > 0
  void* y;                  // like x, written; must not overlap x
  float* offset;            // [N, C], written, or null: the plane's mean minus its first value x[n, c, 0, 0]. Kept
                            // this way because a float mean far above the spread would lose the spread's digits
  float* rstd;              // [N, C], written, or null: 1 / sqrt(variance + eps)
  void* workspace;          // adain_workspace() bytes, 16-byte aligned, need not be cleared; null when that is 0
};

std::int64_t adain_workspace(const AdainParams& params);  // bytes; pointers are not looked at

// Runs after what `stream` holds. The status says whether the launches were accepted, not how they ended.
Status adain_cuda(const AdainParams& params, Stream stream);

// Gradients of a loss from its gradient to y. (A residual's gradient is grad_y itself.) With g = grad_y, masked where
// the ReLU was closed, xhat = (x - mean) * rstd, and means over H x W:
//
//   grad_bias = sum g,  grad_weight = sum g * xhat,  grad_x = weight * rstd * (g - mean(g) - xhat * mean(g * xhat))
struct AdainBackwardParams {
  const void* grad_y;       // [N, C, H, W]
  const void* x;            // [N, C, H, W]
  Dtype type;               // of grad_y, x and grad_x
  Layout layout;            // of grad_y, x and grad_x
  std::int64_t n, c, h, w;  // n and c >= 0, h and w > 0
  const float* weight;      // [N, C], or null: 1
  const float* bias;        // [N, C], or null: 0; read for the ReLU only
  bool relu;                // whether forward had it; where y would be <= 0, grad_y does not pass
  const float* offset;      // [N, C], from forward
  const float* rstd;        // [N, C], from forward
  void* grad_x;             // like x, written; must not overlap the others
  float* grad_weight;       // [N, C], written, or null
  float* grad_bias;         // [N, C], written, or null
  void* workspace;          // adain_backward_workspace() bytes, 16-byte aligned; null when that is 0
};

std::int64_t adain_backward_workspace(const AdainBackwardParams& params);

Status adain_backward_cuda(const AdainBackwardParams& params, Stream stream);

}  // namespace ldf
