// A camera's frame to the plane that the network takes: luma, resize or warp, and gain control in one pass.
#pragma once

#include "common.h"
#include "frame.h"
#include "status.h"

namespace ldf {

enum class Border : std::int32_t { replicate, constant };

// Where each pixel of the plane is read in the frame: (X, Y, W) = matrix * (x, y, 1), at (X / W, Y / W), bilinear.
// Whole numbers are pixel centres, as in OpenCV's warpPerspective with WARP_INVERSE_MAP. Points with W <= 0 lie behind
// the camera and are outside, whatever the border.
struct Geometry {
  double matrix[9];    // row by row; finite; only its positive multiples mean the same
  Border border;       // what is read outside the frame: its nearest pixel, or border_value
  float border_value;  // in the frame's counts; also what points with W <= 0 get, replicated border or not
};

// The same place: no resampling at all.
inline Geometry same_place() { return {{1, 0, 0, 0, 1, 0, 0, 0, 1}, Border::replicate, 0.0f}; }

// OpenCV's resize with INTER_LINEAR (half-pixel centres: x_in = (x + 0.5) * width_in / width - 0.5, nearest pixel
// beyond the border; no prefilter, so shrinking by much aliases).
inline Geometry resized(std::int64_t height_in, std::int64_t width_in, std::int64_t height, std::int64_t width) {
  const double x = static_cast<double>(width_in) / static_cast<double>(width);
  const double y = static_cast<double>(height_in) / static_cast<double>(height);
  return {{x, 0, x / 2 - 0.5, 0, y, y / 2 - 0.5, 0, 0, 1}, Border::replicate, 0.0f};
}

// From counts (after interpolation, luma of colour in the counts of its channels) to 0..1, clipped.
struct Gain {
  float low, high;     // the counts that become 0 and 1, linear between; high <= low reads as high = low + 1
  const float* range;  // not null: {low, high} are read from here instead, such as percentiles16_cuda wrote them
  const float* table;  // not null: value of each count, [256] or [65536] by the frame's depth; the interpolated count
                       // is rounded to the nearest (halves to even) first. Entries are clipped to [0, 1].
};

// The whole range of a format: 0..255, 0..65535, or 16..235 for nv12 and yuyv in video range.
inline Gain full_scale(Format format, Range range) {
  if (is_yuv(format) && range == Range::video) return {16.0f, 235.0f, nullptr, nullptr};
  return {0.0f, is_16bit(format) ? 65535.0f : 255.0f, nullptr, nullptr};
}

struct FrameToPlaneParams {
  Frame frame;  // at least 1x1; nv12 and yuyv: its Y
  Geometry geometry;
  Gain gain;
  Plane plane;          // may be empty; overwritten. Its size is the output's
  std::uint8_t* inside;  // null, or [H, W] of the plane's size, overwritten: 255 where the point lies on the frame
  std::int64_t inside_stride_y;  // (-0.5 <= x <= width - 0.5, the same for y, W > 0), 0 elsewhere. Bytes
};

// Luma of colour is 0.114 B + 0.587 G + 0.299 R (ITU-R BT.601), unrounded. u8 planes are rounded to nearest, halves to
// even. CPU and GPU agree to the bit: the arithmetic is frame_math.h's, in single precision.
void frame_to_plane_cpu(const FrameToPlaneParams& params, int threads);
// Pointers are the device's; gain.range and gain.table too.
Status frame_to_plane_cuda(const FrameToPlaneParams& params, Stream stream);

}  // namespace ldf
