// The per-pixel arithmetic of frames, for CPU and CUDA alike.
#pragma once

#include <cstdint>

#include "common.h"

namespace ldf {

// A linear map of 16-bit values onto 0..255: `low` becomes 0, `low + 255 / gain` becomes 255, nearest, halves up.
// Doubles, because the product of a 16-bit value and a gain near a half must not round twice.
LDF_HD inline std::uint8_t scale_to_8(std::uint16_t value, double low, double gain) {
  double grey = (static_cast<double>(value) - low) * gain + 0.5;
  grey = grey > 0.0 ? grey : 0.0;
  grey = grey < 255.0 ? grey : 255.0;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(grey));
}

// A visible value plus a luma difference in 8-bit grey levels, in the depth of the visible frame, clipped.
LDF_HD inline std::uint16_t add_luma_to(std::uint16_t value, std::int16_t delta) {
  std::int32_t sum = static_cast<std::int32_t>(value) + static_cast<std::int32_t>(delta) * 257;
  sum = sum > 0 ? sum : 0;
  return static_cast<std::uint16_t>(sum < 65535 ? sum : 65535);
}

template <class Float>
LDF_HD inline Float add_luma_to(Float value, std::int16_t delta) {
  const Float sum = value + static_cast<Float>(delta) / Float(255);
  const Float floor = sum > Float(0) ? sum : Float(0);
  return floor < Float(1) ? floor : Float(1);
}

}  // namespace ldf
