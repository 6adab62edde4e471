#include "frame_input.h"

#include "frame_input_math.h"
#include "parallel.h"

namespace ldf {
namespace {

// Packed floats, as most planes are, in a loop of their own. Parameters by value: what a pointer to char writes might
// else be one of them, as far as a compiler knows.
template <class Value>
void write_row(const Plane plane, std::int64_t y, Value value) {
  char* row = static_cast<char*>(plane.values) + y * plane.stride_y;
  if (plane.type == PlaneType::f32 && plane.stride_x == sizeof(float)) {
    for (std::int64_t x = 0; x < plane.width; ++x) store(row + x * static_cast<int>(sizeof(float)), value(x));
  } else {
    for (std::int64_t x = 0; x < plane.width; ++x) write_element(plane.type, row + x * plane.stride_x, value(x));
  }
}

template <class T, int kChannels>
void straight_row(const LumaSource source, const GainMap gain, const Plane& plane, std::int64_t y,
                  std::uint8_t* inside) {
  write_row(plane, y, [=](std::int64_t x) { return shown(gain, luma_at<T, kChannels>(source, x, y)); });
  if (inside) std::memset(inside, 255, static_cast<std::size_t>(plane.width));
}

template <class T, int kChannels>
void warped_row(const LumaSource source, const Warp warp, const GainMap gain, const Plane& plane, std::int64_t y,
                std::uint8_t* inside) {
  write_row(plane, y, [=](std::int64_t x) {
    const auto s =
        sample<T, kChannels>(source, warp, static_cast<std::int32_t>(x), static_cast<std::int32_t>(y));
    if (inside) inside[x] = s.inside ? 255 : 0;
    return shown(gain, s.counts);
  });
}

template <class T, int kChannels>
void run(const FrameToPlaneParams& p, int threads) {
  const LumaSource source = luma_source(p.frame);
  const Warp warp = warp_of(p.geometry, p.frame, p.plane);
  const GainMap gain = gain_map(p.gain, sizeof(T) == 2);
  const std::int64_t nanoseconds = p.plane.height * p.plane.width * (warp.moves ? 20 : 3);
  parallel_for(p.plane.height, nanoseconds, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t y = begin; y < end; ++y) {
      std::uint8_t* inside = p.inside ? p.inside + y * p.inside_stride_y : nullptr;
      if (warp.moves) {
        warped_row<T, kChannels>(source, warp, gain, p.plane, y, inside);
      } else {
        straight_row<T, kChannels>(source, gain, p.plane, y, inside);
      }
    }
  });
}

}  // namespace

void frame_to_plane_cpu(const FrameToPlaneParams& p, int threads) {
  const bool one = is_grey(p.frame.format) || is_yuv(p.frame.format);
  if (is_16bit(p.frame.format)) {
    one ? run<std::uint16_t, 1>(p, threads) : run<std::uint16_t, 3>(p, threads);
  } else {
    one ? run<std::uint8_t, 1>(p, threads) : run<std::uint8_t, 3>(p, threads);
  }
}

}  // namespace ldf
