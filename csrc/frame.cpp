#include "frame_output.h"
#include "frame_stats.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "frame_math.h"
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

LDF_CLONES void scale_run(const std::uint16_t* v, std::int64_t n, double low, double gain, std::uint8_t* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = scale_to_8(v[i], low, gain);
}

template <class T>
inline void add_luma_pixels(const T* vis, const std::int16_t* delta, std::int64_t n, std::int64_t channels, T* out) {
  if (channels == 1) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = add_luma_to(vis[i], delta[i]);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < 3; ++c) out[3 * i + c] = add_luma_to(vis[3 * i + c], delta[i]);
  }
}

template <class T>
void add_luma_all(const AddLumaParams& p, int threads) {
  const std::int64_t elements = p.height * p.width * p.channels;
  parallel_for(p.height, elements / 2, threads, [&p](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * p.width;
    add_luma_pixels(static_cast<const T*>(p.vis) + first * p.channels, p.delta + first, (end - begin) * p.width,
                    p.channels, static_cast<T*>(p.out) + first * p.channels);
  });
}

}  // namespace

void histogram16_cpu(const Frame16& frame, std::int64_t* counts) {
  // Two tables, taken in turn: equal neighbours do not wait for each other.
  std::vector<std::int64_t> odd(65536);
  std::fill(counts, counts + 65536, 0);
  for (std::int64_t y = 0; y < frame.height; ++y) {
    each_run(frame, y, [&](const std::uint16_t* v, std::int64_t n) {
      std::int64_t i = 0;
      for (; i + 2 <= n; i += 2) {
        ++counts[v[i]];
        ++odd[v[i + 1]];
      }
      if (i < n) ++counts[v[i]];
    });
  }
  for (std::size_t v = 0; v < odd.size(); ++v) counts[v] += odd[v];
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

void add_luma_cpu(const AddLumaParams& params, int threads) {
  switch (params.depth) {
    case Depth::u16: return add_luma_all<std::uint16_t>(params, threads);
    case Depth::f32: return add_luma_all<float>(params, threads);
    case Depth::f64: return add_luma_all<double>(params, threads);
  }
}

}  // namespace ldf
