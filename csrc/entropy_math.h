// The two formulas of histogram entropy, for CPU and CUDA alike.
#pragma once

#include <cmath>

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

// This bin's share of the entropy, -p log2 p with p = count / total; count > 0. Exactly 0 for p = 1.
LDF_HD inline double bits_of(double count, double total) {
  const double p = count / total;
  return p < 1.0 ? -p * std::log2(p) : 0.0;
}

}  // namespace ldf
