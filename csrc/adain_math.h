// The inner math of adaptive instance normalisation, for CPU and CUDA alike.
#pragma once

#include <cmath>

#include "common.h"

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

LDF_HD inline float adain_apply(float x, const AdainMap& map) {
  return ((x - map.mean_high) - map.mean_low) * map.scale + map.bias;
}

}  // namespace ldf
