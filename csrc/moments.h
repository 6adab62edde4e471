// Count, mean and sum of squared differences to the mean of a set of values, and of two sets together.
#pragma once

#include "common.h"

namespace ldf {

struct Moments {
  float count;
  float mean;
  float m2;  // sum of (value - mean)^2
};

// Both sets as one (Chan, Golub and LeVeque 1979). No large sums are subtracted, so no digits are lost.
LDF_HD inline Moments combine(const Moments& a, const Moments& b) {
  const float count = a.count + b.count;
  if (count == 0.0f) return a;
  const float share = b.count / count;
  const float delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

}  // namespace ldf
