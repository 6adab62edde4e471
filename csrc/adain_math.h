// The inner math of the norms (adaptive instance normalisation and the decoder's), for CPU and CUDA alike.
#pragma once

#include <cmath>

#include "common.h"
#include "moments.h"

namespace ldf {

// What a plane's statistics and style come down to. The mean is kept as the sum of two floats: for a plane whose
// values lie far above their spread, x - mean_high is exact, and mean_low puts back what one float cannot hold.
struct AdainMap {
  float mean_high;
  float mean_low;
  float scale;
  float bias;
};

// `variance` is the biased one (divided by the number of pixels).
LDF_HD inline AdainMap adain_map(double mean, double variance, float weight, float bias, double eps) {
  const float high = static_cast<float>(mean);
  return {high, static_cast<float>(mean - static_cast<double>(high)),
          static_cast<float>(static_cast<double>(weight) / sqrt(variance + eps)), bias};
}

LDF_HD inline float centred(float x, const AdainMap& map) { return (x - map.mean_high) - map.mean_low; }

LDF_HD inline float adain_apply(float x, const AdainMap& map) { return centred(x, map) * map.scale + map.bias; }

// NaN stays.
LDF_HD inline float rectified(float value) { return value < 0.0f ? 0.0f : value; }

// 1 / deviation of a plane, from its moments.
LDF_HD inline float plane_rstd(const Moments& plane, float eps) { return 1.0f / sqrtf(plane.m2 / plane.count + eps); }

// The unbiased deviation of a sample; NaN for a single value.
LDF_HD inline float sample_std(const Moments& sample) { return sqrtf(sample.m2 / (sample.count - 1.0f)); }

LDF_HD inline float sample_rstd(float std, float eps) { return 1.0f / (std + eps); }

// Gradient to x of one element: what its own output passes on, less what it passes on through mean and deviation.
struct GradientMap {
  AdainMap map;
  float shift;
  float slope;
};

// The gradient that reaches the map: none where the ReLU was closed.
LDF_HD inline float opened(float grad_y, float centred_x, const AdainMap& map) {
  return centred_x * map.scale + map.bias <= 0.0f ? 0.0f : grad_y;
}

LDF_HD inline float gradient(float grad_y, float centred_x, const GradientMap& m) {
  return grad_y * m.map.scale - m.shift - centred_x * m.slope;
}

// `sum_g`, `sum_gx`: sums of g and g * xhat over the plane's `count` pixels.
LDF_HD inline GradientMap plane_gradient(const AdainMap& map, float rstd, float sum_g, float sum_gx, float count) {
  return {map, map.scale * (sum_g / count), map.scale * rstd * (sum_gx / count)};
}

// `sum_h`, `sum_hx`: the same over the sample, each weighted with its channel's gamma.
LDF_HD inline GradientMap sample_gradient(const AdainMap& map, float std, float rstd, float sum_h, float sum_hx,
                                          float count) {
  return {map, rstd * (sum_h / count), std == 0.0f ? 0.0f : rstd * (sum_hx / ((count - 1.0f) * std))};
}

}  // namespace ldf
