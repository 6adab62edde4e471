// Counting grey levels by slices of bits, where a CPU has the instructions: two thirds of the time of counters.
#pragma once

#include <cstdint>

#include "entropy_math.h"

namespace ldf {

// A counter in memory takes one store a pixel, and a core does one a cycle. This counts without: pixels are dealt to
// four piles by their two highest bits; 512 pixels of a pile are turned into six slices, of which slice k holds bit k
// of each; the pixels of one grey level are then those where the six slices, or what they lack, are all set: two
// instructions and a population count for 512 pixels.
class SliceCounter {
 public:
  // AVX-512 with VBMI, VBMI2, GFNI and VPOPCNTDQ: Intel from Ice Lake, AMD from Zen 4. Without, call nothing else.
  static bool available();

  void add(const std::uint8_t* pixels, std::int64_t n);

  // Adds to `counts` how often each grey level came. Once, after the last pixel.
  void add_to(std::int64_t (&counts)[kBins]);

 private:
  static constexpr int kPiles = 4;
  static constexpr int kLevels = kBins / kPiles;
  static constexpr std::int64_t kBlock = 512;  // pixels of a slice: the bits of a register
  static constexpr std::int64_t kFull = 2 * kBlock;
  static constexpr std::int64_t kTurn = 1024;  // pixels dealt before the piles are looked at

  alignas(64) std::uint64_t totals_[kPiles][kLevels][8] = {};  // in eight parts
  alignas(64) std::uint8_t piles_[kPiles][kFull + kTurn + 64];
  std::int64_t held_[kPiles] = {};
};

}  // namespace ldf
