// Bilinear sampling of a square box through an affine map: the rule of trainer/patches.py, for CPU and CUDA alike.
#pragma once

#include <cstdint>

#include "common.h"
#include "dtype.h"
#include "rounded.h"

namespace ldf {

struct BoxMap {
  float half;     // of the box's side, in pixels
  float step;     // from one pixel of the patch to the next, in pixels of the box
  float map[6];   // from the patch to the box, both from their centres
  std::int32_t last;  // the box's last column and row
};

// `side` of the box and `size` of the patch in pixels, `map` [2, 3].
LDF_HD inline BoxMap box_map(std::int32_t side, std::int32_t size, const float* map) {
  BoxMap m;
  m.half = 0.5f * static_cast<float>(side);
  m.step = static_cast<float>(side) / static_cast<float>(size);
  for (int i = 0; i < 6; ++i) m.map[i] = map[i];
  m.last = side - 1;
  return m;
}

// A place between four pixels of a box.
struct Place {
  bool inside;           // of the box; else the value is 0 and the rest is not set
  std::int32_t x0, x1;   // columns, x0 <= x1 <= last
  std::int32_t y0, y1;   // rows
  float x, y;            // how far from the first towards the second, 0 to 1
};

// Where pixel (x, y) of the patch is looked up. Exact for an identity map from a box of the patch's own size.
LDF_HD inline Place place_of(const BoxMap& m, std::int32_t x, std::int32_t y) {
  const float across = product(static_cast<float>(x) + 0.5f, m.step) - m.half;
  const float down = product(static_cast<float>(y) + 0.5f, m.step) - m.half;
  const float from_centre_x = product(across, m.map[0]) + product(down, m.map[1]) + m.map[2];
  const float from_centre_y = product(across, m.map[3]) + product(down, m.map[4]) + m.map[5];
  Place p;
  // Written so that a NaN is outside.
  p.inside = from_centre_x >= -m.half && from_centre_x <= m.half && from_centre_y >= -m.half && from_centre_y <= m.half;
  if (!p.inside) return p;
  const float last = static_cast<float>(m.last);
  const float column = from_centre_x + 0.5f * last, row = from_centre_y + 0.5f * last;
  // Up to half a pixel beyond the outermost centres the outermost pixel is all there is.
  const float clamped_column = column < 0.0f ? 0.0f : column > last ? last : column;
  const float clamped_row = row < 0.0f ? 0.0f : row > last ? last : row;
  p.x0 = static_cast<std::int32_t>(clamped_column);
  p.y0 = static_cast<std::int32_t>(clamped_row);
  p.x1 = p.x0 < m.last ? p.x0 + 1 : m.last;
  p.y1 = p.y0 < m.last ? p.y0 + 1 : m.last;
  p.x = clamped_column - static_cast<float>(p.x0);
  p.y = clamped_row - static_cast<float>(p.y0);
  return p;
}

// The value there. `box` is the box's first pixel, aligned for T, strides in bytes. Between equal pixels, and at a
// pixel's centre, exactly theirs; never beyond the pixels' range where that is [0, 1].
template <class T>
LDF_HD inline float value_at(const char* box, std::int64_t stride_y, std::int64_t stride_x, const Place& p) {
  if (!p.inside) return 0.0f;
  const char* upper = box + p.y0 * stride_y;
  const char* lower = box + p.y1 * stride_y;
  const float a = to_float(*reinterpret_cast<const T*>(upper + p.x0 * stride_x));
  const float b = to_float(*reinterpret_cast<const T*>(upper + p.x1 * stride_x));
  const float c = to_float(*reinterpret_cast<const T*>(lower + p.x0 * stride_x));
  const float d = to_float(*reinterpret_cast<const T*>(lower + p.x1 * stride_x));
  const float top = a + product(p.x, b - a);
  const float bottom = c + product(p.x, d - c);
  return top + product(p.y, bottom - top);
}

}  // namespace ldf
