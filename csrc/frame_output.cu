#include "frame_output.h"

#include <type_traits>

#include "frame_check.h"
#include "frame_output_math.h"
#include "frame_words.cuh"
#include "launch.cuh"

namespace ldf {
namespace {

// Which of a PlaneToFrameParams' rows can be moved as words.
struct InWords {
  bool fused, vis, out;
};

__device__ inline float fused_at(const Plane& plane, std::int64_t x, std::int64_t y) {
  return read_element(plane.type, element_at(plane, x, y));
}

// Four pixels of visible colour.
template <class Vis>
__device__ inline void read_colours(const PlaneToFrameParams& p, bool words, std::int64_t x, std::int64_t y,
                                    Colour* colours) {
  using T = typename Vis::T;
  if constexpr (std::is_same_v<Vis, Three<T>>) {
    if (words) {
      const char* at = static_cast<const char*>(p.vis.pixels) + y * p.vis.stride_y + x * p.vis.stride_x;
      const auto read = Words<T, 3 * kFour>::read(at);
#pragma unroll
      for (int i = 0; i < kFour; ++i) {
        const T pixel[3] = {read.get(3 * i), read.get(3 * i + 1), read.get(3 * i + 2)};
        colours[i] = Vis::of(pixel, blue_of(p.vis.format));
      }
      return;
    }
  }
  for (int i = 0; i < kFour; ++i) colours[i] = Vis::read(p.vis, p.range, x + i, y);
}

// Frames of one or three channels, four pixels a thread. Each thread has read its pixels before it writes them, so
// that the output may be the visible frame itself.
template <class Vis>
__global__ void __launch_bounds__(kAcross* kDown) pixels_kernel(const PlaneToFrameParams p, const InWords in_words) {
  using T = typename Vis::T;
  const std::int64_t x = kFour * thread_across(), width = p.fused.width;
  if (x >= width) return;
  const int blue = blue_of(p.out.format);
  for (std::int64_t y = thread_down(); y < p.fused.height; y += rows_apart()) {
    if (!in_words.out || x + kFour > width) {
      for (std::int64_t i = x; i < x + kFour && i < width; ++i) write_pixel<Vis>(p, fused_at(p.fused, i, y), i, y);
      continue;
    }
    float fused[kFour];
    if (in_words.fused) {
      read_four(p.fused.type, element_at(p.fused, x, y), fused);
    } else {
      for (int i = 0; i < kFour; ++i) fused[i] = fused_at(p.fused, x + i, y);
    }
    Colour colours[kFour];
    read_colours<Vis>(p, in_words.vis, x, y, colours);
    T samples[3 * kFour];
#pragma unroll
    for (int i = 0; i < kFour; ++i) {
      recolour(colours[i], new_luma<T>(p, fused[i], colours[i].luma, x + i, y), blue, samples + 3 * i);
    }
    Words<T, 3 * kFour>::pack(samples).write(static_cast<char*>(p.out.pixels) + y * p.out.stride_y +
                                             x * p.out.stride_x);
  }
}

__device__ inline void store_pair(char* at, std::uint8_t first, std::uint8_t second, bool whole) {
  if (whole) {
    store<std::uint16_t>(at, static_cast<std::uint16_t>(first | second << 8));
  } else {
    store<std::uint8_t>(at, first);
    store<std::uint8_t>(at + 1, second);
  }
}

// nv12, 2x2 pixels a thread.
template <class Vis>
__global__ void __launch_bounds__(kAcross* kDown) blocks_kernel(const PlaneToFrameParams p, const bool pairs) {
  const std::int64_t x = 2 * thread_across();
  if (x >= p.fused.width) return;
  for (std::int64_t row = thread_down(); row < p.fused.height / 2; row += rows_apart()) {
    const std::int64_t y = 2 * row;
    float fused[4];
    for (int i = 0; i < 4; ++i) fused[i] = fused_at(p.fused, x + i % 2, y + i / 2);
    const Block block = fused_block<Vis>(p, fused, x, y);
    char* luma = static_cast<char*>(p.out.pixels) + y * p.out.stride_y + x;
    store_pair(luma, block.y[0], block.y[1], pairs);
    store_pair(luma + p.out.stride_y, block.y[2], block.y[3], pairs);
    char* chroma = static_cast<char*>(p.out.chroma) + row * p.out.chroma_stride_y + x;
    store_pair(chroma, block.chroma.u, block.chroma.v, pairs);
  }
}

template <class Vis>
Status write_pixels(const PlaneToFrameParams& p, Stream stream) {
  constexpr std::int64_t kPixel = 3 * sizeof(typename Vis::T);
  const auto three = [](const Frame& f) {
    return !is_grey(f.format) && !is_yuv(f.format) && in_words(f.pixels, f.stride_y, f.stride_x, kPixel, 4);
  };
  const InWords words{in_words(p.fused), three(p.vis), three(p.out)};
  return launch("plane_to_frame", &pixels_kernel<Vis>, grid_over(p.fused.height, (p.fused.width + kFour - 1) / kFour),
                dim3{kAcross, kDown, 1}, 0, stream, p, words);
}

template <class Vis>
Status write_blocks(const PlaneToFrameParams& p, Stream stream) {
  const bool pairs = aligned(p.out.pixels, 2) && p.out.stride_y % 2 == 0 && aligned(p.out.chroma, 2) &&
                     p.out.chroma_stride_y % 2 == 0;
  return launch("plane_to_frame (nv12)", &blocks_kernel<Vis>, grid_over(p.fused.height / 2, p.fused.width / 2),
                dim3{kAcross, kDown, 1}, 0, stream, p, pairs);
}

}  // namespace

Status plane_to_frame_cuda(const PlaneToFrameParams& p, Stream stream) {
  if (problem_on_gpu(p)) return {cudaErrorInvalidValue, "plane_to_frame", "problem_on_gpu"};
  return with_reader(p.vis.format, [&](auto reader) {
    using Vis = decltype(reader);
    if constexpr (sizeof(typename Vis::T) == 1) {
      if (p.out.format == Format::nv12) return write_blocks<Vis>(p, stream);
    }
    return write_pixels<Vis>(p, stream);
  });
}

}  // namespace ldf
