#include "entropy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "entropy_math.h"
#include "entropy_slices.h"
#include "parallel.h"
#include "sample_math.h"

namespace ldf {
namespace {

// Neighbouring pixels are often equal. Counting them in one table would make each increment wait for the store
// before it, so consecutive pixels count in different tables, which are added up at the end. Then a pixel costs one
// store, of which a core does one a cycle: 1.02 cycles a byte measured on Zen 3, the same for noise and pictures.
// Slower, tried: a table of byte pairs, which halves the stores but leaves the first cache; the counters of a grey
// level side by side, so that neighbouring pixels share a cache line; one store for eight equal pixels, which in
// pictures is hard to foresee. Faster: no counters, see entropy_slices.h.
constexpr int kTables = 8;
constexpr int kRow = kBins + 8;  // tables that start in different cache sets
constexpr std::int64_t kChunk = 1024;
constexpr std::int64_t kMost = std::int64_t{1} << 31;  // pixels that the 32-bit tables hold for certain
constexpr std::int64_t kWorthSlices = 8192;            // with fewer pixels, setting them up costs what they save

struct Histogram {
  explicit Histogram(std::int64_t pixels) {
    if (pixels >= kWorthSlices && SliceCounter::available()) slices.emplace();
  }

  std::optional<SliceCounter> slices;  // instead of the tables
  std::uint32_t table[kTables][kRow] = {};
  std::int64_t held = 0;            // pixels in the tables, at most
  std::int64_t counts[kBins] = {};  // what was in them before they were cleared
};

// Returns how many values are in no bin: these are given the first.
template <class Float>
inline int bins_of(const Float* values, int n, std::uint8_t* bins) {
  int outside = 0;
  const auto one = [&](int i) {
    const int bin = bin_of(values[i]);
    static_assert(kOutside == 1 << 8);
    outside += bin >> 8;
    bins[i] = static_cast<std::uint8_t>(bin);
  };
  constexpr int kStep = 64;
  int i = 0;
  for (; i + kStep <= n; i += kStep) {
    for (int k = 0; k < kStep; k += 64 / sizeof(Float)) __builtin_prefetch(values + i + kChunk + k);
    for (int k = 0; k < kStep; ++k) one(i + k);
  }
  for (; i < n; ++i) one(i);
  return outside;
}

LDF_CLONES int bins_of_row(const float* values, int n, std::uint8_t* bins) {
  return bins_of(values, n, bins);
}

LDF_CLONES int bins_of_row(const double* values, int n, std::uint8_t* bins) {
  return bins_of(values, n, bins);
}

// Eight pixels come in one load and go to eight tables.
void count(const std::uint8_t* pixels, std::int64_t n, Histogram& h) {
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, pixels + i, 8);
    __builtin_prefetch(pixels + i + 1024);  // the processor looks too short a way ahead: a third slower without
    ++h.table[0][eight & 255];
    ++h.table[1][eight >> 8 & 255];
    ++h.table[2][eight >> 16 & 255];
    ++h.table[3][eight >> 24 & 255];
    ++h.table[4][eight >> 32 & 255];
    ++h.table[5][eight >> 40 & 255];
    ++h.table[6][eight >> 48 & 255];
    ++h.table[7][eight >> 56];
  }
  for (; i < n; ++i) ++h.table[0][pixels[i]];
}

// A patch of one value takes one store; of any other, the first pixels that differ tell.
void count_run(const std::uint8_t* pixels, std::int64_t n, Histogram& h) {
  if (n > 0 && std::memcmp(pixels, pixels + 1, static_cast<std::size_t>(n - 1)) == 0) {
    h.table[0][pixels[0]] += static_cast<std::uint32_t>(n);
  } else if (h.slices) {
    h.slices->add(pixels, n);
  } else {
    count(pixels, n, h);
  }
}

template <class Float>
void count_run(const Float* values, std::int64_t n, Histogram& h) {
  std::uint8_t bins[kChunk];
  for (std::int64_t i = 0; i < n; i += kChunk) {
    const std::int64_t m = std::min(kChunk, n - i);
    h.counts[0] -= bins_of_row(values + i, static_cast<int>(m), bins);
    count_run(bins, m, h);
  }
}

// A row with gaps, or one that is not aligned for its type, goes through a small buffer.
template <class T>
void count_row(const char* row, std::int64_t width, std::int64_t stride, Histogram& h) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(row) % alignof(T) == 0;
  if (stride == static_cast<std::int64_t>(sizeof(T)) && aligned) {
    count_run(reinterpret_cast<const T*>(row), width, h);
    return;
  }
  T buffer[kChunk];
  for (std::int64_t x = 0; x < width; x += kChunk) {
    const std::int64_t m = std::min(kChunk, width - x);
    for (std::int64_t i = 0; i < m; ++i) std::memcpy(&buffer[i], row + (x + i) * stride, sizeof(T));
    count_run(buffer, m, h);
  }
}

// Adds the tables to the counts.
LDF_CLONES void add_tables(Histogram& h) {
  for (int bin = 0; bin < kBins; ++bin) {
    std::uint32_t sum = 0;
    for (int t = 0; t < kTables; ++t) sum += h.table[t][bin];
    h.counts[bin] += sum;
  }
}

// To be called before `pixels` <= kMost more are counted.
void make_room(Histogram& h, std::int64_t pixels) {
  if (h.held + pixels > kMost) {
    add_tables(h);
    std::memset(h.table, 0, sizeof(h.table));
    h.held = 0;
  }
  h.held += pixels;
}

// log2 of a count. Most counts are small, and 256 logarithms a patch would take a tenth of the time.
double log2_of(std::int64_t count) {
  static const auto table = [] {
    std::array<double, 2048> logs{};
    for (std::size_t i = 1; i < logs.size(); ++i) logs[i] = std::log2(static_cast<double>(i));
    return logs;
  }();
  const auto index = static_cast<std::size_t>(count);
  return index < table.size() ? table[index] : std::log2(static_cast<double>(count));
}

// Once, after the last pixel.
double bits_of(Histogram& h) {
  add_tables(h);
  if (h.slices) h.slices->add_to(h.counts);
  std::int64_t total = 0;
  for (const std::int64_t c : h.counts) total += c;
  if (total == 0) return 0.0;
  const double log2_total = log2_of(total);
  double sum = 0.0;
  for (const std::int64_t c : h.counts) {
    if (c > 0) sum += weighted_bits(static_cast<double>(c), log2_of(c), log2_total);
  }
  return sum / static_cast<double>(total);
}

template <class T>
double entropy_of(const char* first, std::int64_t height, std::int64_t width, std::int64_t stride_y,
                  std::int64_t stride_x) {
  if (stride_y == width * stride_x) {  // rows follow each other: one long row
    width *= height;
    height = 1;
  }
  Histogram h(height * width);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; x += kMost) {
      const std::int64_t m = std::min(kMost, width - x);
      make_room(h, m);
      count_row<T>(first + y * stride_y + x * stride_x, m, stride_x, h);
    }
  }
  return bits_of(h);
}

template <class T>
void entropy_all(const EntropyParams& p, int threads) {
  std::int64_t pixels = p.count * p.height * p.width;
  if (p.boxes) {
    pixels = 0;
    for (std::int64_t i = 0; i < p.count; ++i) pixels += std::int64_t{p.boxes[4 * i + 2]} * p.boxes[4 * i + 3];
  }
  parallel_for(p.count, pixels / 2, threads, [&p](std::int64_t begin, std::int64_t end) {
    const char* first = static_cast<const char*>(p.pixels);
    for (std::int64_t i = begin; i < end; ++i) {
      if (p.boxes) {
        const std::int32_t* box = p.boxes + 4 * i;
        p.bits[i] = entropy_of<T>(first + box[1] * p.stride_y + box[0] * p.stride_x, box[3], box[2], p.stride_y,
                                  p.stride_x);
      } else {
        p.bits[i] = entropy_of<T>(first + i * p.stride_n, p.height, p.width, p.stride_y, p.stride_x);
      }
    }
  });
}

// Of plane i % P in patch i / P.
double entropy_of_affine(const EntropyAffineParams& p, std::int64_t i) {
  const std::int32_t* box = p.boxes + 3 * (i / p.count);
  const BoxMap map = box_map(box[2], p.size, p.maps + 6 * (i / p.count));
  const char* first = static_cast<const char*>(p.planes) + i % p.count * p.stride_p + box[1] * p.stride_y +
                      box[0] * p.stride_x;
  Histogram h(std::int64_t{p.size} * p.size);
  float values[kChunk];
  for (std::int32_t y = 0; y < p.size; ++y) {
    for (std::int64_t x = 0; x < p.size; x += kChunk) {
      const std::int64_t m = std::min(kChunk, p.size - x);
      for (std::int64_t k = 0; k < m; ++k) {
        const Place place = place_of(map, static_cast<std::int32_t>(x + k), y);
        values[k] = value_at<float>(first, p.stride_y, p.stride_x, place);
      }
      make_room(h, m);
      count_run(values, m, h);
    }
  }
  return bits_of(h);
}

}  // namespace

void entropy_cpu(const EntropyParams& params, int threads) {
  switch (params.type) {
    case Pixel::u8: return entropy_all<std::uint8_t>(params, threads);
    case Pixel::f32: return entropy_all<float>(params, threads);
    case Pixel::f64: return entropy_all<double>(params, threads);
    case Pixel::f16:
    case Pixel::bf16: return;  // nobody asks: see the header
  }
}

void entropy_affine_cpu(const EntropyAffineParams& params, int threads) {
  const std::int64_t patches = params.patches * params.count;
  parallel_for(patches, patches * params.size * params.size * 4, threads, [&params](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) params.bits[i] = entropy_of_affine(params, i);
  });
}

}  // namespace ldf
