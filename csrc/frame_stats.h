// Statistics of 16-bit frames, for gain control.
#pragma once

#include <cstdint>

#include "common.h"
#include "status.h"

namespace ldf {

// A 16-bit frame; strides in bytes, any sign; any alignment on the CPU, even on a GPU.
struct Frame16 {
  const void* pixels;
  std::int64_t height, width;
  std::int64_t stride_y, stride_x;
};

constexpr int kCounts16 = 65536;

// counts[v] = how many pixels have the value v; counts is [65536] and is overwritten.
void histogram16_cpu(const Frame16& frame, std::int64_t* counts);
// The same in device memory; at most 2^32 - 1 pixels.
Status histogram16_cuda(const Frame16& frame, std::uint32_t* counts, Stream stream);

// Two percentiles of a frame's counts as numpy.percentile (linear) gives them.
struct Percentiles16Params {
  Frame16 frame;         // at least one pixel
  double low, high;      // percentages, 0..100
  std::uint32_t* counts;  // device scratch of [65536], 16-byte aligned, overwritten with the histogram
  float* range;          // [2], overwritten, or null: both percentiles, rounded; what Gain::range takes
  double* exact;         // [2], overwritten, or null: the same before they are rounded
};

// The same in double, on the CPU.
void percentiles16_cpu(const Frame16& frame, double low, double high, double* range);
// Everything stays on the device: frame_to_plane_cuda on the same stream may read `range` next.
Status percentiles16_cuda(const Percentiles16Params& params, Stream stream);

// out[h, w] = round((v - low) * 255 / (high - low)), halves up, clipped to 0..255; out is contiguous; low < high.
void scale16_cpu(const Frame16& frame, double low, double high, std::uint8_t* out, int threads);

}  // namespace ldf
