// What frames deeper than 8 bits need around the network, which sees 8 bits.
#pragma once

#include <cstdint>

namespace ldf {

// A 16-bit frame; strides in bytes, any sign and alignment.
struct Frame16 {
  const void* pixels;
  std::int64_t height, width;
  std::int64_t stride_y, stride_x;
};

// counts[v] = how many pixels have the value v; counts is [65536] and is overwritten.
void histogram16_cpu(const Frame16& frame, std::int64_t* counts);

// out[h, w] = round((v - low) * 255 / (high - low)), halves up, clipped to 0..255; out is contiguous; low < high.
void scale16_cpu(const Frame16& frame, double low, double high, std::uint8_t* out, int threads);

enum class Depth : std::int32_t { u16, f32, f64 };

struct AddLumaParams {
  const void* vis;  // [H, W, channels], contiguous: uint16, or floats in [0, 1]
  Depth depth;
  std::int64_t height, width, channels;
  const std::int16_t* delta;  // [H, W], contiguous: fused minus visible luma, in 8-bit grey levels
  void* out;  // like vis, contiguous; may be vis itself
};

// out = vis + delta (times 257 for uint16, over 255 for floats) in every channel, clipped to the depth's range.
void add_luma_cpu(const AddLumaParams& params, int threads);

}  // namespace ldf
