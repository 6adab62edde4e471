#include "frame_stats.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "frame_stats_math.h"
#include "parallel.h"

namespace ldf {
namespace {

constexpr std::int64_t kChunk = 1024;

// One row as runs of aligned neighbours; anything else passes through a buffer.
template <class Visit>
void each_run(const Frame16& frame, std::int64_t y, Visit visit) {
  const char* row = static_cast<const char*>(frame.pixels) + y * frame.stride_y;
  const bool aligned = reinterpret_cast<std::uintptr_t>(row) % alignof(std::uint16_t) == 0;
  if (aligned && frame.stride_x == static_cast<std::int64_t>(sizeof(std::uint16_t))) {
    visit(reinterpret_cast<const std::uint16_t*>(row), frame.width);
    return;
  }
  std::uint16_t buffer[kChunk];
  for (std::int64_t x = 0; x < frame.width; x += kChunk) {
    const std::int64_t n = std::min(kChunk, frame.width - x);
    for (std::int64_t i = 0; i < n; ++i) std::memcpy(&buffer[i], row + (x + i) * frame.stride_x, sizeof(buffer[i]));
    visit(buffer, n);
  }
}

LDF_CLONES void widen_range(const std::uint16_t* v, std::int64_t n, std::uint16_t* first, std::uint16_t* last) {
  std::uint16_t low = *first, high = *last;
  for (std::int64_t i = 0; i < n; ++i) {
    low = v[i] < low ? v[i] : low;
    high = v[i] > high ? v[i] : high;
  }
  *first = low;
  *last = high;
}

// Adds how often each of the `range` values from `first` on is in the frame, which has no others.
void count_values(const Frame16& frame, std::int32_t first, std::int32_t range, std::int64_t* counts) {
  // Two tables, taken in turn: equal neighbours do not wait for each other.
  std::vector<std::int64_t> odd(static_cast<std::size_t>(range));
  for (std::int64_t y = 0; y < frame.height; ++y) {
    each_run(frame, y, [&](const std::uint16_t* v, std::int64_t n) {
      std::int64_t i = 0;
      for (; i + 2 <= n; i += 2) {
        ++counts[v[i] - first];
        ++odd[static_cast<std::size_t>(v[i + 1] - first)];
      }
      if (i < n) ++counts[v[i] - first];
    });
  }
  for (std::int32_t i = 0; i < range; ++i) counts[i] += odd[static_cast<std::size_t>(i)];
}

LDF_CLONES void scale_run(const std::uint16_t* v, std::int64_t n, double low, double gain, std::uint8_t* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = scale_to_8(v[i], low, gain);
}

}  // namespace

void histogram16_cpu(const Frame16& frame, std::int64_t* counts) {
  std::fill(counts, counts + kCounts16, 0);
  count_values(frame, 0, kCounts16, counts);
}

void percentiles16_cpu(const Frame16& frame, double low, double high, double* range) {
  // A thermal frame has a few hundred of the 65536 values: their counts stay in the first cache.
  std::uint16_t first = 65535, last = 0;
  for (std::int64_t y = 0; y < frame.height; ++y) {
    each_run(frame, y, [&](const std::uint16_t* v, std::int64_t n) { widen_range(v, n, &first, &last); });
  }
  std::vector<std::int64_t> counts(static_cast<std::size_t>(last - first + 1));
  count_values(frame, first, last - first + 1, counts.data());
  const auto count_at = [&](std::int64_t place) {
    std::int64_t seen = 0;
    std::int32_t index = 0;
    while ((seen += counts[static_cast<std::size_t>(index)]) <= place) ++index;
    return first + index;
  };
  const Rank ranks[2] = {rank_of(low, frame.height * frame.width), rank_of(high, frame.height * frame.width)};
  for (int i = 0; i < 2; ++i) range[i] = percentile(ranks[i], count_at(ranks[i].below), count_at(above(ranks[i])));
}

void scale16_cpu(const Frame16& frame, double low, double high, std::uint8_t* out, int threads) {
  const double gain = 255.0 / (high - low);
  parallel_for(frame.height, frame.height * frame.width / 2, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      std::uint8_t* to = out + y * frame.width;
      each_run(frame, y, [&](const std::uint16_t* v, std::int64_t n) {
        scale_run(v, n, low, gain, to);
        to += n;
      });
    }
  });
}

}  // namespace ldf
