// Count, mean and sum of squared differences to the mean of a set of values, and of two sets together.
#pragma once

#include "common.h"

namespace ldf {

struct Moments {
  float count;
  float mean;
  float m2;  // sum of (value - mean)^2
};

// a / b for b >= 1; on a GPU in two instructions, off by the last bit or two.
LDF_HD inline float quick_quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// Both sets as one (Chan, Golub and LeVeque 1979). No large sums are subtracted, so no digits are lost.
LDF_HD inline Moments combine(const Moments& a, const Moments& b) {
  const float count = a.count + b.count;
  const float share = quick_quotient(b.count, count > 1.0f ? count : 1.0f);  // 0 of two empty sets
  const float delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

}  // namespace ldf
