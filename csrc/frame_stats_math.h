// The arithmetic of 16-bit statistics, for CPU and CUDA alike.
#pragma once

#include <cmath>
#include <cstdint>

#include "frame_math.h"

namespace ldf {

// A place among the sorted pixels of a frame, counted from 0: `part` of the way from pixel `below` to the next.
struct Rank {
  std::int64_t below;
  double part;
};

inline Rank rank_of(double percent, std::int64_t pixels) {
  const double place = percent / 100 * static_cast<double>(pixels - 1);
  const double below = std::floor(place);
  return {static_cast<std::int64_t>(below), place - below};
}

// The pixel after `below` that counts; `below` itself where the place is a whole one (there may be no next).
LDF_HD inline std::int64_t above(const Rank& rank) { return rank.below + (rank.part > 0.0 ? 1 : 0); }

LDF_HD inline double percentile(const Rank& rank, std::int32_t lower, std::int32_t upper) {
  return lower + product(static_cast<double>(upper - lower), rank.part);
}

// A linear map of 16-bit values onto 0..255: `low` becomes 0, `low + 255 / gain` becomes 255, nearest, halves up.
// Doubles, because the product of a 16-bit value and a gain near a half must not round twice.
LDF_HD inline std::uint8_t scale_to_8(std::uint16_t value, double low, double gain) {
  double grey = (static_cast<double>(value) - low) * gain + 0.5;
  grey = grey > 0.0 ? grey : 0.0;
  grey = grey < 255.0 ? grey : 255.0;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(grey));
}

}  // namespace ldf
