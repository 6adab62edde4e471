// The decoder's LayerNorm: one mean and one *unbiased* deviation over C x H x W of every sample, with eps outside the
// root, then a scale and a shift per channel:
//
//   y[n, c] = (x[n, c] - mean) / (std + eps) * gamma[c] + beta[c]
//
// NaN or infinity spoil their own sample only. A sample of one value has no deviation: NaN, as torch has it.
// On the CPU torch serves (pyldfusion/generator.py, SampleNorm).
#pragma once

#include <cstdint>

#include "common.h"
#include "dtype.h"
#include "status.h"

namespace ldf {

// All pointers are the device's and aligned for their type at least; 16-byte aligned ones are faster.
struct SampleNormParams {
  const void* x;            // [N, C, H, W], dense
  Dtype type;               // of x and y
  Layout layout;            // of x and y
  std::int64_t n, c, h, w;  // n and c >= 0, h and w > 0
  const float* gamma;       // [C]
  const float* beta;        // [C]
  bool relu;                // y = max(y, 0) after the map; NaN stays
  double eps;               // > 0
  void* y;                  // like x, written; must not overlap x
  float* offset;            // [N], written, or null: the sample's mean minus its first value x[n, 0, 0, 0]
  float* std;               // [N], written, or null: the unbiased standard deviation, without eps
  void* workspace;          // sample_norm_workspace() bytes, 16-byte aligned, need not be cleared
};

std::int64_t sample_norm_workspace(const SampleNormParams& params);  // bytes; pointers are not looked at

// Runs after what `stream` holds. The status says whether the launches were accepted, not how they ended.
Status sample_norm_cuda(const SampleNormParams& params, Stream stream);

// Gradients of a loss from its gradient to y. With g = grad_y, masked where the ReLU was closed, xhat = (x - mean) /
// (std + eps), h = g * gamma[c], M = C * H * W, sums and means over C x H x W of a sample:
//
//   grad_beta[c] = sum over N, H, W of g,  grad_gamma[c] = sum over N, H, W of g * xhat
//   grad_x = (h - mean(h) - xhat * sum(h * xhat) * (std + eps) / (std * (M - 1))) / (std + eps)
//
// The last term is 0 where std is 0.
struct SampleNormBackwardParams {
  const void* grad_y;       // [N, C, H, W], dense
  const void* x;            // [N, C, H, W], dense
  Dtype type;               // of grad_y, x and grad_x
  Layout layout;            // of grad_y, x and grad_x
  std::int64_t n, c, h, w;  // n and c >= 0, h and w > 0
  const float* gamma;       // [C]
  const float* beta;        // [C]; read for the ReLU only
  bool relu;                // whether forward had it; where y would be <= 0, grad_y does not pass
  double eps;               // as in forward
  const float* offset;      // [N], from forward
  const float* std;         // [N], from forward
  void* grad_x;             // like x, written; must not overlap the others
  float* grad_gamma;        // [C], written (0 when N is 0)
  float* grad_beta;         // [C], written (0 when N is 0)
  void* workspace;          // sample_norm_backward_workspace() bytes, 16-byte aligned
};

std::int64_t sample_norm_backward_workspace(const SampleNormBackwardParams& params);

Status sample_norm_backward_cuda(const SampleNormBackwardParams& params, Stream stream);

}  // namespace ldf
