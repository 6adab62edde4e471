// One pixel of frame_to_plane, for CPU and CUDA alike.
#pragma once

#include <cmath>

#include "frame_input.h"
#include "frame_math.h"

namespace ldf {

// The frame as something with a luma: T is its sample, kChannels 1 (grey, or the Y of nv12 and yuyv) or 3.
struct LumaSource {
  const char* first;
  std::int64_t stride_y, stride_x;
  std::int32_t height, width;
  int blue;
};

inline LumaSource luma_source(const Frame& f) {
  return {static_cast<const char*>(f.pixels), f.stride_y, f.stride_x, static_cast<std::int32_t>(f.height),
          static_cast<std::int32_t>(f.width), blue_of(f.format)};
}

template <class T, int kChannels>
LDF_HD inline float luma_of(const T* pixel, int blue) {
  if constexpr (kChannels == 1) {
    return static_cast<float>(pixel[0]);
  } else {
    return luma_of(static_cast<float>(blue ? pixel[2] : pixel[0]), static_cast<float>(pixel[1]),
                   static_cast<float>(blue ? pixel[0] : pixel[2]));
  }
}

template <class T, int kChannels>
LDF_HD inline float luma_at(const char* at, int blue) {
  T pixel[kChannels];
  for (int c = 0; c < kChannels; ++c) pixel[c] = load<T>(at + c * static_cast<int>(sizeof(T)));
  return luma_of<T, kChannels>(pixel, blue);
}

template <class T, int kChannels>
LDF_HD inline float luma_at(const LumaSource& source, std::int64_t x, std::int64_t y) {
  return luma_at<T, kChannels>(source.first + y * source.stride_y + x * source.stride_x, source.blue);
}

// A Geometry between two sizes, in single precision: off by less than 0.001 pixels for frames up to 4096 wide.
struct Warp {
  float m[9];
  bool moves;       // false: every pixel is read at its own place, which is in the frame
  bool projective;  // W is not 1 everywhere
  bool constant;    // border
  float border_value;
  float low, high_x, high_y;  // what lies farther outside reads the same as here
  float edge_x, edge_y;       // right and lower end of the frame's area; the others are at -0.5
};

inline Warp warp_of(const Geometry& g, const Frame& frame, const Plane& plane) {
  Warp w{};
  const double* m = g.matrix;
  w.projective = !(m[6] == 0 && m[7] == 0 && m[8] > 0);
  double scale = w.projective ? 0.0 : m[8];
  if (w.projective) {
    for (int i = 0; i < 9; ++i) scale = std::fmax(scale, std::fabs(m[i]));
  }
  bool identity = !w.projective && plane.width <= frame.width && plane.height <= frame.height;
  for (int i = 0; i < 9; ++i) {
    w.m[i] = static_cast<float>(m[i] / scale);
    identity = identity && w.m[i] == (i % 4 == 0 ? 1.0f : 0.0f);
  }
  w.moves = !identity;
  w.constant = g.border == Border::constant;
  w.border_value = g.border_value;
  const float beyond = w.constant ? 1.0f : 0.0f;
  w.low = -beyond;
  w.high_x = static_cast<float>(frame.width - 1) + beyond;
  w.high_y = static_cast<float>(frame.height - 1) + beyond;
  w.edge_x = static_cast<float>(frame.width) - 0.5f;
  w.edge_y = static_cast<float>(frame.height) - 0.5f;
  return w;
}

template <class T, int kChannels>
LDF_HD inline float tap(const LumaSource& source, const Warp& warp, std::int32_t x, std::int32_t y) {
  const bool out = x < 0 || y < 0 || x >= source.width || y >= source.height;
  if (out && warp.constant) return warp.border_value;
  // Not constant: only the right and lower neighbour can be out, by one, with weight 0.
  x = x < source.width ? x : source.width - 1;
  y = y < source.height ? y : source.height - 1;
  return luma_at<T, kChannels>(source, x, y);
}

struct Sample {
  float counts;
  bool inside;
};

LDF_HD inline std::int32_t floor_of(float value) {
  const auto whole = static_cast<std::int32_t>(value);
  return static_cast<float>(whole) > value ? whole - 1 : whole;
}

// What pixel (x, y) of the plane reads in the frame.
template <class T, int kChannels>
LDF_HD inline Sample sample(const LumaSource& source, const Warp& warp, std::int32_t x, std::int32_t y) {
  const auto fx = static_cast<float>(x), fy = static_cast<float>(y);
  const float* m = warp.m;
  float px = product(m[0], fx) + product(m[1], fy) + m[2];
  float py = product(m[3], fx) + product(m[4], fy) + m[5];
  if (warp.projective) {
    const float pw = product(m[6], fx) + product(m[7], fy) + m[8];
    if (!(pw > 0.0f)) return {warp.border_value, false};
    px = quotient(px, pw);
    py = quotient(py, pw);
  }
  const bool inside = px >= -0.5f && px <= warp.edge_x && py >= -0.5f && py <= warp.edge_y;
  px = clipped(px, warp.low, warp.high_x);
  py = clipped(py, warp.low, warp.high_y);
  const std::int32_t x0 = floor_of(px), y0 = floor_of(py);
  const float right = px - static_cast<float>(x0), down = py - static_cast<float>(y0);
  float a, b, c, d;
  if (x0 >= 0 && y0 >= 0 && x0 + 1 < source.width && y0 + 1 < source.height) {
    const char* at = source.first + y0 * source.stride_y + x0 * source.stride_x;
    a = luma_at<T, kChannels>(at, source.blue);
    b = luma_at<T, kChannels>(at + source.stride_x, source.blue);
    c = luma_at<T, kChannels>(at + source.stride_y, source.blue);
    d = luma_at<T, kChannels>(at + source.stride_y + source.stride_x, source.blue);
  } else {
    a = tap<T, kChannels>(source, warp, x0, y0);
    b = tap<T, kChannels>(source, warp, x0 + 1, y0);
    c = tap<T, kChannels>(source, warp, x0, y0 + 1);
    d = tap<T, kChannels>(source, warp, x0 + 1, y0 + 1);
  }
  const float upper = a + product(right, b - a), lower = c + product(right, d - c);
  return {upper + product(down, lower - upper), inside};
}

// Gain, ready to use; made on the device, where its range may be.
struct GainMap {
  float low, span;
  const float* table;
  float last;  // the table's last count
};

LDF_HD inline GainMap gain_map(const Gain& gain, bool deep) {
  const float low = gain.range ? gain.range[0] : gain.low, high = gain.range ? gain.range[1] : gain.high;
  return {low, high > low ? high - low : 1.0f, gain.table, deep ? 65535.0f : 255.0f};
}

LDF_HD inline float shown(const GainMap& gain, float counts) {
  if (gain.table) return clipped(gain.table[nearest(clipped(counts, 0.0f, gain.last))], 0.0f, 1.0f);
  return clipped(quotient(counts - gain.low, gain.span), 0.0f, 1.0f);
}

}  // namespace ldf
