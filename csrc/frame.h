// How frames and planes lie in memory: what the frame kernels read and write. The kernels themselves are in
// frame_input.h (frame to plane), frame_output.h (plane to frame) and frame_stats.h (16-bit statistics).
#pragma once

#include <cstdint>

namespace ldf {

enum class Format : std::int32_t {
  grey8,   // uint8; infrared, or a visible frame without colour
  grey16,  // uint16
  bgr8,    // uint8 [..., 3], as OpenCV has it
  rgb8,
  bgr16,   // uint16 [..., 3]
  rgb16,
  nv12,    // uint8 Y [H, W], then U V of every 2x2 pixels [H/2, W/2, 2]; even height and width
  yuyv,    // uint8 Y0 U Y1 V of every 2 pixels (YUY2, YUYV422): [H, W, 2]; even width
};

// What Y, U and V of nv12 and yuyv mean (ITU-R BT.601). Other formats have no range.
enum class Range : std::int32_t {
  video,  // black 16, white 235, chroma 128 +- 112: cameras and decoders, and what OpenCV assumes
  full,   // black 0, white 255, chroma 128 +- 127.5: JPEG
};

// One frame. Strides are in bytes and may be negative. 16-bit samples are in the machine's byte order; on a GPU, and
// only there, they must lie at even addresses.
struct Frame {
  Format format;
  std::int64_t height, width;
  void* pixels;           // the first pixel (nv12: of the Y plane); only read where the frame is a source
  std::int64_t stride_y;  // from a row to the next
  std::int64_t stride_x;  // from a pixel to the next; more than a pixel has (bgr8 in BGRA: 4) skips. nv12 1, yuyv 2
  void* chroma;           // nv12: the first U; null otherwise
  std::int64_t chroma_stride_y;  // nv12: from a row of U V pairs to the next
};

// Which of them have what in common.
constexpr bool is_yuv(Format f) { return f == Format::nv12 || f == Format::yuyv; }
constexpr bool is_grey(Format f) { return f == Format::grey8 || f == Format::grey16; }
constexpr bool is_16bit(Format f) { return f == Format::grey16 || f == Format::bgr16 || f == Format::rgb16; }
constexpr bool is_rgb(Format f) { return f == Format::rgb8 || f == Format::rgb16; }

enum class PlaneType : std::int32_t {
  u8,  // 0..255 stands for 0..1
  f16,
  bf16,
  f32,
};

constexpr std::int64_t bytes_of(PlaneType type) {
  return type == PlaneType::u8 ? 1 : type == PlaneType::f32 ? 4 : 2;
}

// Bytes of one pixel in `pixels` (nv12: of its Y).
constexpr std::int64_t bytes_of(Format f) {
  return (is_grey(f) || f == Format::nv12 ? 1 : f == Format::yuyv ? 2 : 3) * (is_16bit(f) ? 2 : 1);
}

// One plane [H, W] of numbers in [0, 1], for the network. Strides are in bytes, multiples of the element's size, and
// may be negative; a stride_x of two elements interleaves two planes, as a channels-last network takes them.
struct Plane {
  PlaneType type;
  std::int64_t height, width;
  void* values;
  std::int64_t stride_y, stride_x;
};

}  // namespace ldf
