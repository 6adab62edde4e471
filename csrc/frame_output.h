// The fused plane back to a camera's frame, with the visible camera's colour, in one pass. The original visible frame
// is read again for its colour, so no chroma plane is ever stored.
#pragma once

#include "common.h"
#include "frame.h"
#include "status.h"

namespace ldf {

struct PlaneToFrameParams {
  Plane fused;  // in [0, 1]; NaN reads as 0. Its size is every other's here
  Frame vis;    // any format; as deep as `out`
  Range range;  // of nv12 and yuyv, in vis and in out
  const std::uint8_t* cover;    // null, or [H, W]: how much of the fused luma is taken, 0 (visible) to 255 (fused);
  std::int64_t cover_stride_y;  // for frames that the infrared covers in part. Bytes
  Frame out;  // any format but yuyv; overwritten. May be vis itself (same memory, same format), else must not overlap
};

// Colours: out = clip(round(c + (fused * top - luma) * cover)) for each channel c of vis, with top = 255 or 65535 and
// luma as in frame_input.h: adding one number to B, G and R changes the luma and keeps the chroma. Rounding is to
// nearest, halves to even. grey: the same with one channel (without cover: the fused plane).
// From nv12 and yuyv the channels are BT.601's: B = Y + 1.772 U, R = Y + 1.402 V, G = Y - 0.344136 U - 0.714136 V,
// each chroma for all its pixels, unclipped before fusion.
// To nv12: Y is the fused luma; U and V are copied (nv12), averaged over two rows (yuyv), or 0.564334 (B - Y) and
// 0.713267 (R - Y) averaged over 2x2 pixels.
void plane_to_frame_cpu(const PlaneToFrameParams& params, int threads);
Status plane_to_frame_cuda(const PlaneToFrameParams& params, Stream stream);

enum class Depth : std::int32_t { u16, f32, f64 };

struct AddLumaParams {
  const void* vis;  // [H, W, channels], contiguous: uint16, or floats in [0, 1]
  Depth depth;
  std::int64_t height, width, channels;
  const std::int16_t* delta;  // [H, W], contiguous: fused minus visible luma, in 8-bit grey levels
  void* out;  // like vis, contiguous; may be vis itself
};

// out = vis + delta (times 257 for uint16, over 255 for floats) in every channel, clipped to the depth's range: the
// way back for graphs that give 8-bit frames.
void add_luma_cpu(const AddLumaParams& params, int threads);

}  // namespace ldf
