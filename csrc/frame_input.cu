#include "frame_input.h"

#include "frame_check.h"
#include "frame_input_math.h"
#include "frame_words.cuh"
#include "launch.cuh"

namespace ldf {
namespace {

struct Job {
  LumaSource source;
  Warp warp;
  Gain gain;
  Plane plane;
  std::uint8_t* inside;
  std::int64_t inside_stride_y;
  bool source_words, plane_words;
};

// Nothing moves: four pixels a thread.
template <class T, int kChannels>
__global__ void __launch_bounds__(kAcross* kDown) straight_kernel(const Job job) {
  const std::int64_t x = kFour * thread_across();
  if (x >= job.plane.width) return;
  const auto count = static_cast<int>(job.plane.width - x < kFour ? job.plane.width - x : kFour);
  const GainMap gain = gain_map(job.gain, sizeof(T) == 2);
  for (std::int64_t y = thread_down(); y < job.plane.height; y += rows_apart()) {
    float values[kFour] = {};
    if (job.source_words && count == kFour) {
      const char* at = job.source.first + y * job.source.stride_y + x * job.source.stride_x;
      const auto words = Words<T, kFour * kChannels>::read(at);
#pragma unroll
      for (int i = 0; i < kFour; ++i) {
        T pixel[kChannels];
        for (int c = 0; c < kChannels; ++c) pixel[c] = words.get(i * kChannels + c);
        values[i] = luma_of<T, kChannels>(pixel, job.source.blue);
      }
    } else {
      for (int i = 0; i < kFour; ++i) {
        if (i < count) values[i] = luma_at<T, kChannels>(job.source, x + i, y);
      }
    }
    for (int i = 0; i < kFour; ++i) values[i] = shown(gain, values[i]);
    if (job.plane_words && count == kFour) {
      write_four(job.plane.type, element_at(job.plane, x, y), values);
    } else {
      for (int i = 0; i < kFour; ++i) {
        if (i < count) write_element(job.plane.type, element_at(job.plane, x + i, y), values[i]);
      }
    }
    if (job.inside) {
      for (int i = 0; i < count; ++i) job.inside[y * job.inside_stride_y + x + i] = 255;
    }
  }
}

// One pixel a thread: neighbours of a row read neighbours of the frame, which the caches share.
template <class T, int kChannels>
__global__ void __launch_bounds__(kAcross* kDown) warp_kernel(const Job job) {
  const std::int64_t x = thread_across();
  if (x >= job.plane.width) return;
  const GainMap gain = gain_map(job.gain, sizeof(T) == 2);
  for (std::int64_t y = thread_down(); y < job.plane.height; y += rows_apart()) {
    const Sample s =
        sample<T, kChannels>(job.source, job.warp, static_cast<std::int32_t>(x), static_cast<std::int32_t>(y));
    write_element(job.plane.type, element_at(job.plane, x, y), shown(gain, s.counts));
    if (job.inside) job.inside[y * job.inside_stride_y + x] = s.inside ? 255 : 0;
  }
}

template <class T, int kChannels>
Status run(const FrameToPlaneParams& p, Stream stream) {
  const Frame& f = p.frame;
  const Job job{luma_source(f),
                warp_of(p.geometry, f, p.plane),
                p.gain,
                p.plane,
                p.inside,
                p.inside_stride_y,
                in_words(f.pixels, f.stride_y, f.stride_x, kChannels * static_cast<int>(sizeof(T)), 4),
                in_words(p.plane)};
  const dim3 block{kAcross, kDown, 1};
  if (job.warp.moves) {
    return launch("frame_to_plane (warp)", &warp_kernel<T, kChannels>, grid_over(p.plane.height, p.plane.width), block,
                  0, stream, job);
  }
  const std::int64_t fours = (p.plane.width + kFour - 1) / kFour;
  return launch("frame_to_plane (straight)", &straight_kernel<T, kChannels>, grid_over(p.plane.height, fours), block, 0,
                stream, job);
}

}  // namespace

Status frame_to_plane_cuda(const FrameToPlaneParams& p, Stream stream) {
  if (problem_on_gpu(p)) return {cudaErrorInvalidValue, "frame_to_plane", "problem_on_gpu"};
  const bool one = is_grey(p.frame.format) || is_yuv(p.frame.format);
  if (is_16bit(p.frame.format)) return one ? run<std::uint16_t, 1>(p, stream) : run<std::uint16_t, 3>(p, stream);
  return one ? run<std::uint8_t, 1>(p, stream) : run<std::uint8_t, 3>(p, stream);
}

}  // namespace ldf
