// One pixel of plane_to_frame, for CPU and CUDA alike.
#pragma once

#include "frame_math.h"
#include "frame_output.h"

namespace ldf {

// A visible pixel in counts; b, g and r of yuv may lie outside 0..255.
struct Colour {
  float b, g, r, luma;
};

// How a visible frame is read, by kinds of formats that need different code: one type each, with the sample's type T.
template <class Sample>
struct Grey {
  using T = Sample;
  static LDF_HD Colour read(const Frame& f, Range, std::int64_t x, std::int64_t y) {
    const auto v = static_cast<float>(load<T>(static_cast<const char*>(f.pixels) + y * f.stride_y + x * f.stride_x));
    return {v, v, v, v};
  }
};

template <class Sample>
struct Three {
  using T = Sample;
  // From the three samples of a pixel.
  static LDF_HD Colour of(const T* pixel, int blue) {
    Colour c{};
    c.b = static_cast<float>(blue ? pixel[2] : pixel[0]);
    c.g = static_cast<float>(pixel[1]);
    c.r = static_cast<float>(blue ? pixel[0] : pixel[2]);
    c.luma = luma_of(c.b, c.g, c.r);
    return c;
  }
  static LDF_HD Colour read(const Frame& f, Range, std::int64_t x, std::int64_t y) {
    const char* at = static_cast<const char*>(f.pixels) + y * f.stride_y + x * f.stride_x;
    T pixel[3];
    for (int c = 0; c < 3; ++c) pixel[c] = load<T>(at + c * static_cast<int>(sizeof(T)));
    return of(pixel, blue_of(f.format));
  }
};

// Y, U and V as ITU-R BT.601 counts them in a range.
struct YuvScale {
  float black, luma, chroma;  // counts of black, and of one full-range step
};

LDF_HD inline YuvScale yuv_scale(Range range) {
  if (range == Range::video) return {16.0f, 219.0f / 255.0f, 224.0f / 255.0f};
  return {0.0f, 1.0f, 1.0f};
}

LDF_HD inline Colour yuv_colour(Range range, std::uint8_t y, std::uint8_t u, std::uint8_t v) {
  const YuvScale s = yuv_scale(range);
  const float luma = quotient(static_cast<float>(y) - s.black, s.luma);
  const float cb = quotient(static_cast<float>(u) - 128.0f, s.chroma);
  const float cr = quotient(static_cast<float>(v) - 128.0f, s.chroma);
  return {luma + product(1.772f, cb), luma - product(0.344136f, cb) - product(0.714136f, cr),
          luma + product(1.402f, cr), luma};
}

struct Nv12 {
  using T = std::uint8_t;
  static LDF_HD const char* chroma_at(const Frame& f, std::int64_t x, std::int64_t y) {
    return static_cast<const char*>(f.chroma) + y / 2 * f.chroma_stride_y + x / 2 * 2;
  }
  static LDF_HD Colour read(const Frame& f, Range range, std::int64_t x, std::int64_t y) {
    const char* uv = chroma_at(f, x, y);
    return yuv_colour(range, load<T>(static_cast<const char*>(f.pixels) + y * f.stride_y + x), load<T>(uv),
                      load<T>(uv + 1));
  }
};

struct Yuyv {
  using T = std::uint8_t;
  static LDF_HD const char* pair_at(const Frame& f, std::int64_t x, std::int64_t y) {
    return static_cast<const char*>(f.pixels) + y * f.stride_y + x / 2 * 4;
  }
  static LDF_HD Colour read(const Frame& f, Range range, std::int64_t x, std::int64_t y) {
    const char* pair = pair_at(f, x, y);
    return yuv_colour(range, load<T>(pair + x % 2 * 2), load<T>(pair + 1), load<T>(pair + 3));
  }
};

// The luma that a pixel gets, in counts: the fused value, or between it and the visible one where it covers in part.
template <class T>
LDF_HD inline float new_luma(const PlaneToFrameParams& p, float fused, float luma, std::int64_t x, std::int64_t y) {
  const float full = fused == fused ? product(fused, top<T>()) : 0.0f;
  if (!p.cover) return full;
  return luma + product(quotient(static_cast<float>(p.cover[y * p.cover_stride_y + x]), 255.0f), full - luma);
}

// The three channels of a pixel whose luma becomes `luma`.
template <class T>
LDF_HD inline void recolour(const Colour& c, float luma, int blue, T* pixel) {
  const float change = luma - c.luma;
  const T b = level<T>(c.b + change), r = level<T>(c.r + change);
  pixel[0] = blue ? r : b;
  pixel[1] = level<T>(c.g + change);
  pixel[2] = blue ? b : r;
}

// Pixel (x, y) of a frame of one or three channels.
template <class Vis>
LDF_HD inline void write_pixel(const PlaneToFrameParams& p, float fused, std::int64_t x, std::int64_t y) {
  using T = typename Vis::T;
  const Colour c = Vis::read(p.vis, p.range, x, y);
  const float luma = new_luma<T>(p, fused, c.luma, x, y);
  char* at = static_cast<char*>(p.out.pixels) + y * p.out.stride_y + x * p.out.stride_x;
  if (p.out.format == Format::grey8 || p.out.format == Format::grey16) {
    store<T>(at, level<T>(luma));
    return;
  }
  T pixel[3];
  recolour(c, luma, blue_of(p.out.format), pixel);
  for (int i = 0; i < 3; ++i) store<T>(at + i * static_cast<int>(sizeof(T)), pixel[i]);
}

// U and V of a block of nv12 from the colours of its four pixels, row by row.
struct Chroma {
  std::uint8_t u, v;
};

template <class Vis>
LDF_HD inline Chroma block_chroma(const PlaneToFrameParams& p, const Colour* c, std::int64_t, std::int64_t) {
  const float step = yuv_scale(p.range).chroma;
  const float b = (c[0].b - c[0].luma) + (c[1].b - c[1].luma) + (c[2].b - c[2].luma) + (c[3].b - c[3].luma);
  const float r = (c[0].r - c[0].luma) + (c[1].r - c[1].luma) + (c[2].r - c[2].luma) + (c[3].r - c[3].luma);
  return {level<std::uint8_t>(product(product(0.564334f / 4.0f, b), step) + 128.0f),
          level<std::uint8_t>(product(product(0.713267f / 4.0f, r), step) + 128.0f)};
}

template <>
LDF_HD inline Chroma block_chroma<Nv12>(const PlaneToFrameParams& p, const Colour*, std::int64_t x, std::int64_t y) {
  const char* uv = Nv12::chroma_at(p.vis, x, y);
  return {load<std::uint8_t>(uv), load<std::uint8_t>(uv + 1)};
}

template <>
LDF_HD inline Chroma block_chroma<Yuyv>(const PlaneToFrameParams& p, const Colour*, std::int64_t x, std::int64_t y) {
  const char *upper = Yuyv::pair_at(p.vis, x, y), *lower = Yuyv::pair_at(p.vis, x, y + 1);
  const int u = load<std::uint8_t>(upper + 1) + load<std::uint8_t>(lower + 1);
  const int v = load<std::uint8_t>(upper + 3) + load<std::uint8_t>(lower + 3);
  return {level<std::uint8_t>(product(0.5f, static_cast<float>(u))),
          level<std::uint8_t>(product(0.5f, static_cast<float>(v)))};
}

// 2x2 pixels of nv12; y row by row.
struct Block {
  std::uint8_t y[4];
  Chroma chroma;
};

// The block whose upper left pixel is (x, y), both even; `fused` has its four values, row by row.
template <class Vis>
LDF_HD inline Block fused_block(const PlaneToFrameParams& p, const float* fused, std::int64_t x, std::int64_t y) {
  Colour c[4];
  for (int i = 0; i < 4; ++i) c[i] = Vis::read(p.vis, p.range, x + i % 2, y + i / 2);
  Block block;
  block.chroma = block_chroma<Vis>(p, c, x, y);
  const YuvScale s = yuv_scale(p.range);
  for (int i = 0; i < 4; ++i) {
    const float luma = new_luma<std::uint8_t>(p, fused[i], c[i].luma, x + i % 2, y + i / 2);
    block.y[i] = level<std::uint8_t>(product(luma, s.luma) + s.black);
  }
  return block;
}

// Calls visit with the type that reads a format.
template <class Visit>
auto with_reader(Format format, Visit visit) {
  switch (format) {
    case Format::grey8: return visit(Grey<std::uint8_t>{});
    case Format::grey16: return visit(Grey<std::uint16_t>{});
    case Format::bgr16:
    case Format::rgb16: return visit(Three<std::uint16_t>{});
    case Format::nv12: return visit(Nv12{});
    case Format::yuyv: return visit(Yuyv{});
    case Format::bgr8:
    case Format::rgb8: break;
  }
  return visit(Three<std::uint8_t>{});
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
