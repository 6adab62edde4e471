// The two formulas of histogram entropy, for CPU and CUDA alike.
#pragma once

#include "common.h"

namespace ldf {

constexpr int kBins = 256;
constexpr int kOutside = kBins;  // the bin of what is not counted

// 256 equal bins on [0, 1]: bin k is [k/256, (k+1)/256), the last one also holds 1. Multiplying by a power of two
// is exact, so this is exactly the edges' rule, with no rounding to argue about. NaN fails both comparisons.
template <class Float>
LDF_HD inline int bin_of(Float value) {
  const bool inside = value >= Float(0) && value <= Float(1);
  const int bin = static_cast<int>((inside ? value : Float(0)) * Float(kBins));
  return inside ? (bin < kBins ? bin : kBins - 1) : kOutside;
}

// What a bin with `count` > 0 of `total` pixels adds to total * entropy: count * log2(total / count), given both
// logarithms. Never negative, and exactly 0 when one bin holds everything.
LDF_HD inline double weighted_bits(double count, double log2_count, double log2_total) {
  return count * (log2_total - log2_count);
}

}  // namespace ldf
