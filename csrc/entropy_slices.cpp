#include "entropy_slices.h"

#if defined(__x86_64__) && defined(__GNUC__)

// GCC 12 warns of its own header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define LDF_SLICES __attribute__((target("avx512f,avx512bw,avx512vbmi,avx512vbmi2,avx512vpopcntdq,gfni,popcnt")))

namespace ldf {
namespace {

// Slice k of 512 pixels: bit k of each. Which bit of a slice is which pixel's does not matter, as long as it is the
// same in all of them.
LDF_SLICES inline void slice(const std::uint8_t* pixels, __m512i (&slices)[8]) {
  // Multiplied by eight bytes as a matrix of bits, the unit matrix gives that matrix transposed: byte k has bit k of
  // the eight. Then all bytes k of a register go side by side.
  const __m512i unit = _mm512_set1_epi64(static_cast<long long>(0x8040201008040201));
  alignas(64) std::uint8_t order[64];
  for (int i = 0; i < 64; ++i) order[i] = static_cast<std::uint8_t>(i % 8 * 8 + i / 8);
  const __m512i sides = _mm512_load_si512(order);
  __m512i rows[8];
  for (int i = 0; i < 8; ++i) {
    const __m512i bits = _mm512_gf2p8affine_epi64_epi8(unit, _mm512_loadu_si512(pixels + 64 * i), 0);
    rows[i] = _mm512_permutexvar_epi8(sides, bits);
  }
  // Eight registers of eight words, transposed: word k of each comes into slice k.
  __m512i pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm512_unpacklo_epi64(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi64(rows[i], rows[i + 1]);
  }
  for (int odd = 0; odd < 2; ++odd) {
    const __m512i low1 = _mm512_shuffle_i64x2(pairs[odd], pairs[2 + odd], 0x44);
    const __m512i low2 = _mm512_shuffle_i64x2(pairs[4 + odd], pairs[6 + odd], 0x44);
    const __m512i high1 = _mm512_shuffle_i64x2(pairs[odd], pairs[2 + odd], 0xee);
    const __m512i high2 = _mm512_shuffle_i64x2(pairs[4 + odd], pairs[6 + odd], 0xee);
    slices[odd] = _mm512_shuffle_i64x2(low1, low2, 0x88);
    slices[2 + odd] = _mm512_shuffle_i64x2(low1, low2, 0xdd);
    slices[4 + odd] = _mm512_shuffle_i64x2(high1, high2, 0x88);
    slices[6 + odd] = _mm512_shuffle_i64x2(high1, high2, 0xdd);
  }
}

// where[v]: the pixels whose three bits, of which `low` is the lowest, are v.
LDF_SLICES inline void decode(__m512i low, __m512i middle, __m512i high, __m512i (&where)[8]) {
  const __m512i two[4] = {_mm512_andnot_si512(_mm512_or_si512(low, middle), _mm512_set1_epi64(-1)),
                          _mm512_andnot_si512(middle, low), _mm512_andnot_si512(low, middle),
                          _mm512_and_si512(low, middle)};
  for (int v = 0; v < 4; ++v) {
    where[v] = _mm512_andnot_si512(high, two[v]);
    where[4 + v] = _mm512_and_si512(high, two[v]);
  }
}

// Puts the pixels that `mask` names behind `end`, and returns the new end. Writes 64 bytes.
LDF_SLICES inline std::uint8_t* append(std::uint8_t* end, __m512i pixels, __mmask64 mask) {
  _mm512_storeu_si512(end, _mm512_maskz_compress_epi8(mask, pixels));
  return end + _mm_popcnt_u64(mask);
}

// Counts the pixels of kBlocks blocks of a pile by their six lower bits.
template <int kBlocks>
LDF_SLICES inline void count(const std::uint8_t* pile, std::uint64_t (*totals)[8]) {
  __m512i low[kBlocks][8], high[kBlocks][8];
  for (int block = 0; block < kBlocks; ++block) {
    __m512i slices[8];  // the two highest are the same all over a pile
    slice(pile + 512 * block, slices);
    decode(slices[0], slices[1], slices[2], low[block]);
    decode(slices[3], slices[4], slices[5], high[block]);
  }
  for (int v = 0; v < 8; ++v) {
    __m512i sums[8];
    for (int w = 0; w < 8; ++w) sums[w] = _mm512_load_si512(totals[8 * v + w]);
    for (int block = 0; block < kBlocks; ++block) {
      const __m512i some = high[block][v];
      for (int w = 0; w < 8; ++w) {
        sums[w] = _mm512_add_epi64(sums[w], _mm512_popcnt_epi64(_mm512_and_si512(some, low[block][w])));
      }
    }
    for (int w = 0; w < 8; ++w) _mm512_store_si512(totals[8 * v + w], sums[w]);
  }
}

}  // namespace

bool SliceCounter::available() {
  static const bool has = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
                          __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("gfni") &&
                          __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("popcnt");
  return has;
}

LDF_SLICES void SliceCounter::add(const std::uint8_t* pixels, std::int64_t n) {
  while (n > 0) {
    const std::int64_t turn = std::min(n, kTurn);
    std::uint8_t* ends[kPiles];
    for (int pile = 0; pile < kPiles; ++pile) ends[pile] = piles_[pile] + held_[pile];
    for (std::int64_t i = 0; i < turn; i += 64) {
      const __mmask64 valid = turn - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (turn - i)) - 1;
      __builtin_prefetch(pixels + i + 2 * kTurn);
      const __m512i some = _mm512_maskz_loadu_epi8(valid, pixels + i);
      const __mmask64 upper = _mm512_movepi8_mask(some);  // by the highest bit, then by the next
      const __mmask64 odd = _mm512_movepi8_mask(_mm512_add_epi8(some, some));
      ends[0] = append(ends[0], some, ~upper & ~odd & valid);
      ends[1] = append(ends[1], some, ~upper & odd);
      ends[2] = append(ends[2], some, upper & ~odd);
      ends[3] = append(ends[3], some, upper & odd);
    }
    for (int pile = 0; pile < kPiles; ++pile) {
      held_[pile] = ends[pile] - piles_[pile];
      if (held_[pile] < kFull) continue;
      count<kFull / kBlock>(piles_[pile], totals_[pile]);
      held_[pile] -= kFull;
      std::memcpy(piles_[pile], piles_[pile] + kFull, kTurn);
    }
    pixels += turn;
    n -= turn;
  }
}

LDF_SLICES void SliceCounter::add_to(std::int64_t (&counts)[kBins]) {
  for (int pile = 0; pile < kPiles; ++pile) {
    // The last block is filled up with the pile's lowest grey level, which is taken off again.
    const std::int64_t filling = (kBlock - held_[pile] % kBlock) % kBlock;
    std::memset(piles_[pile] + held_[pile], pile * kLevels, static_cast<std::size_t>(filling));
    for (std::int64_t i = 0; i < held_[pile]; i += kBlock) count<1>(piles_[pile] + i, totals_[pile]);
    counts[pile * kLevels] -= filling;
    for (int level = 0; level < kLevels; ++level) {
      counts[pile * kLevels + level] += _mm512_reduce_add_epi64(_mm512_load_si512(totals_[pile][level]));
    }
  }
}

}  // namespace ldf

#else

namespace ldf {

bool SliceCounter::available() { return false; }
void SliceCounter::add(const std::uint8_t*, std::int64_t) {}
void SliceCounter::add_to(std::int64_t (&)[kBins]) {}

}  // namespace ldf

#endif
