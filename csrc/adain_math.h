// The inner math of the norms (adaptive instance normalisation and the decoder's), for CPU and CUDA alike.
#pragma once

#include <cmath>

#include "common.h"
#include "moments.h"

namespace ldf {

// What a plane's statistics and style come down to: y = (x - origin) * scale + shift. The origin lies among the plane's
// values, so that x - origin is exact where they lie far above their spread; what is left of the mean is in `shift`.
struct AdainMap {
  float origin;
  float scale;
  float shift;
};

// `variance` is the biased one (divided by the number of pixels).
LDF_HD inline AdainMap adain_map(double mean, double variance, float weight, float bias, double eps) {
  const float origin = static_cast<float>(mean);
  const double scale = static_cast<double>(weight) / sqrt(variance + eps);
  return {origin, static_cast<float>(scale),
          static_cast<float>(static_cast<double>(bias) - (mean - static_cast<double>(origin)) * scale)};
}

LDF_HD inline float adain_apply(float x, const AdainMap& map) { return (x - map.origin) * map.scale + map.shift; }

// NaN stays.
LDF_HD inline float rectified(float value) { return value < 0.0f ? 0.0f : value; }

// 1 / deviation of a plane, from its moments.
LDF_HD inline float plane_rstd(const Moments& plane, float eps) { return 1.0f / sqrtf(plane.m2 / plane.count + eps); }

// The unbiased deviation of a sample; NaN for a single value.
LDF_HD inline float sample_std(const Moments& sample) { return sqrtf(sample.m2 / (sample.count - 1.0f)); }

LDF_HD inline float sample_rstd(float std, float eps) { return 1.0f / (std + eps); }

// Gradient to x of one element, g * scale - mean(...) - (x - mean) * slope: what its own output passes on, less what it
// passes on through mean and deviation. `rest` is all that is the same for the whole plane.
struct GradientMap {
  AdainMap map;
  float rest;
  float slope;
};

// The gradient that reaches the map: none where the ReLU was closed.
LDF_HD inline float opened(float grad_y, float x, const AdainMap& map) {
  return adain_apply(x, map) <= 0.0f ? 0.0f : grad_y;
}

LDF_HD inline float gradient(float grad_y, float x, const GradientMap& m) {
  return grad_y * m.map.scale + (m.rest - (x - m.map.origin) * m.slope);
}

// `sum_g`, `sum_gx`: sums of g and g * xhat over the plane's `count` pixels. `offset`: the mean less the origin.
LDF_HD inline GradientMap plane_gradient(const AdainMap& map, float offset, float rstd, float sum_g, float sum_gx,
                                         float count) {
  const float slope = map.scale * rstd * (sum_gx / count);
  return {map, offset * slope - map.scale * (sum_g / count), slope};
}

// `sum_h`, `sum_hx`: the same over the sample, each weighted with its channel's gamma.
LDF_HD inline GradientMap sample_gradient(const AdainMap& map, float offset, float std, float rstd, float sum_h,
                                          float sum_hx, float count) {
  const float slope = std == 0.0f ? 0.0f : rstd * (sum_hx / ((count - 1.0f) * std));
  return {map, offset * slope - rstd * (sum_h / count), slope};
}

}  // namespace ldf
