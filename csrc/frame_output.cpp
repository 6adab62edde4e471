#include "frame_output.h"

#include <algorithm>

#include "frame_output_math.h"
#include "parallel.h"

namespace ldf {
namespace {

float fused_at(const Plane& plane, std::int64_t x, std::int64_t y) {
  return read_element(plane.type,
                      static_cast<const char*>(plane.values) + y * plane.stride_y + x * plane.stride_x);
}

constexpr std::int64_t kRun = 256;

// What most frames are, in loops that vectorise: packed 8-bit colour in and out, packed floats. The same numbers as
// write_pixel gives; `out` may be `vis`.
LDF_CLONES void recolour_run(const float* fused, const std::uint8_t* vis, std::int64_t n, int blue, int blue_out,
                             std::uint8_t* out) {
  float colour[3][kRun], change[kRun];
  std::uint8_t level8[3][kRun];
  for (std::int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < 3; ++c) colour[c][i] = static_cast<float>(vis[3 * i + c]);
  }
  const float *b = colour[blue], *r = colour[2 - blue];
  for (std::int64_t i = 0; i < n; ++i) {
    change[i] = (fused[i] == fused[i] ? product(fused[i], 255.0f) : 0.0f) - luma_of(b[i], colour[1][i], r[i]);
  }
  for (int c = 0; c < 3; ++c) {
    for (std::int64_t i = 0; i < n; ++i) {
      float value = colour[c][i] + change[i];
      value = value > 0.0f ? value : 0.0f;
      level8[c][i] = static_cast<std::uint8_t>(nearest(value < 255.0f ? value : 255.0f));
    }
  }
  const std::uint8_t *first = level8[blue == blue_out ? 0 : 2], *last = level8[blue == blue_out ? 2 : 0];
  for (std::int64_t i = 0; i < n; ++i) {
    out[3 * i] = first[i];
    out[3 * i + 1] = level8[1][i];
    out[3 * i + 2] = last[i];
  }
}

bool is_packed_colour(const Frame& f) {
  return (f.format == Format::bgr8 || f.format == Format::rgb8) && f.stride_x == 3;
}

bool runs_serve(const PlaneToFrameParams& p) {
  return is_packed_colour(p.vis) && is_packed_colour(p.out) && p.fused.type == PlaneType::f32 &&
         p.fused.stride_x == sizeof(float) && !p.cover;
}

void recolour_rows(const PlaneToFrameParams& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t y = begin; y < end; ++y) {
    const char* fused = static_cast<const char*>(p.fused.values) + y * p.fused.stride_y;
    const auto* vis = static_cast<const std::uint8_t*>(p.vis.pixels) + y * p.vis.stride_y;
    auto* out = static_cast<std::uint8_t*>(p.out.pixels) + y * p.out.stride_y;
    for (std::int64_t x = 0; x < p.fused.width; x += kRun) {
      recolour_run(reinterpret_cast<const float*>(fused) + x, vis + 3 * x, std::min(kRun, p.fused.width - x),
                   blue_of(p.vis.format), blue_of(p.out.format), out + 3 * x);
    }
  }
}

// Parameters by value: what a pointer to char writes might else be one of them, as far as a compiler knows.
template <class Vis>
void write_rows(const PlaneToFrameParams p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t y = begin; y < end; ++y) {
    for (std::int64_t x = 0; x < p.fused.width; ++x) write_pixel<Vis>(p, fused_at(p.fused, x, y), x, y);
  }
}

template <class Vis>
void write_blocks(const PlaneToFrameParams p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t y = 2 * begin; y < 2 * end; y += 2) {
    for (std::int64_t x = 0; x < p.fused.width; x += 2) {
      float fused[4];
      for (int i = 0; i < 4; ++i) fused[i] = fused_at(p.fused, x + i % 2, y + i / 2);
      const Block block = fused_block<Vis>(p, fused, x, y);
      std::uint8_t* row = static_cast<std::uint8_t*>(p.out.pixels) + y * p.out.stride_y + x;
      for (int i = 0; i < 4; ++i) row[i / 2 * p.out.stride_y + i % 2] = block.y[i];
      std::uint8_t* uv = static_cast<std::uint8_t*>(p.out.chroma) + y / 2 * p.out.chroma_stride_y + x;
      uv[0] = block.chroma.u;
      uv[1] = block.chroma.v;
    }
  }
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

void plane_to_frame_cpu(const PlaneToFrameParams& p, int threads) {
  if (runs_serve(p)) {
    return parallel_for(p.fused.height, p.fused.height * p.fused.width, threads,
                        [&](std::int64_t begin, std::int64_t end) { recolour_rows(p, begin, end); });
  }
  const bool blocks = p.out.format == Format::nv12;
  const std::int64_t nanoseconds = p.fused.height * p.fused.width * 5;
  with_reader(p.vis.format, [&](auto reader) {
    using Vis = decltype(reader);
    parallel_for(blocks ? p.fused.height / 2 : p.fused.height, nanoseconds, threads,
                 [&](std::int64_t begin, std::int64_t end) {
                   if constexpr (sizeof(typename Vis::T) == 1) {
                     if (blocks) return write_blocks<Vis>(p, begin, end);
                   }
                   write_rows<Vis>(p, begin, end);
                 });
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
