// What is wrong with the arguments of frame kernels, as a sentence, or null: for the bindings, which refuse by it.
// Looks at numbers and null pointers, not at memory.
#pragma once

#include <cmath>
#include <initializer_list>

#include "frame_input.h"
#include "frame_output.h"
#include "frame_stats.h"

namespace ldf {

// Coordinates are single precision: whole pixels are exact up to here.
constexpr std::int64_t kLongestSide = std::int64_t{1} << 22;

inline const char* problem(const Frame& f) {
  if (f.height < 1 || f.width < 1) return "the frame is empty";
  if (f.height > kLongestSide || f.width > kLongestSide) return "the frame has more than 4194304 pixels a side";
  if (!f.pixels) return "the frame has no pixels";
  if (f.format == Format::nv12) {
    if (f.height % 2 || f.width % 2) return "nv12 needs an even width and height";
    if (!f.chroma) return "nv12 needs its plane of U and V";
    if (f.stride_x != 1) return "the Y of nv12 must be packed";
  } else if (f.format == Format::yuyv) {
    if (f.width % 2) return "yuyv needs an even width";
    if (f.stride_x != 2) return "the pixels of yuyv must be packed";
  }
  return nullptr;
}

inline const char* problem(const Plane& p) {
  if (p.height < 0 || p.width < 0) return "the plane has a negative size";
  if (p.height > kLongestSide || p.width > kLongestSide) return "the plane has more than 4194304 pixels a side";
  if (p.height && p.width && !p.values) return "the plane has no memory";
  if (p.stride_y % bytes_of(p.type) || p.stride_x % bytes_of(p.type)) return "the plane's strides split its elements";
  return nullptr;
}

inline const char* problem(const Geometry& g) {
  double largest = 0;
  for (const double m : g.matrix) {
    if (!std::isfinite(m)) return "the matrix has an entry that is not finite";
    largest = std::fmax(largest, std::fabs(m));
  }
  if (largest == 0) return "the matrix is zero";
  const bool affine = g.matrix[6] == 0 && g.matrix[7] == 0 && g.matrix[8] > 0;
  if (affine && largest / g.matrix[8] > 1e30) return "the matrix is too large for single precision";
  if (!std::isfinite(g.border_value)) return "the border value is not finite";
  return nullptr;
}

inline const char* problem(const FrameToPlaneParams& p) {
  if (const char* wrong = problem(p.frame)) return wrong;
  if (const char* wrong = problem(p.plane)) return wrong;
  if (const char* wrong = problem(p.geometry)) return wrong;
  if (!p.gain.range && !p.gain.table && !(std::isfinite(p.gain.low) && std::isfinite(p.gain.high))) {
    return "the gain's range is not finite";
  }
  return nullptr;
}

inline const char* problem(const PlaneToFrameParams& p) {
  if (const char* wrong = problem(p.fused)) return wrong;
  if (p.fused.height == 0 || p.fused.width == 0) return "the fused plane is empty";
  for (const Frame* frame : {&p.vis, &p.out}) {
    if (const char* wrong = problem(*frame)) return wrong;
    if (frame->height != p.fused.height || frame->width != p.fused.width) return "the sizes differ";
  }
  if (p.out.format == Format::yuyv) return "yuyv cannot be written; nv12 can";
  if (is_16bit(p.vis.format) != is_16bit(p.out.format)) return "the visible frame and the output differ in depth";
  return nullptr;
}

// On a GPU every element lies at a multiple of its size.
inline bool aligned(const void* address, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(bytes) == 0;
}

inline bool aligned(const Frame& f) {
  return !is_16bit(f.format) || (aligned(f.pixels, 2) && f.stride_y % 2 == 0 && f.stride_x % 2 == 0);
}

// As problem(), for the functions that end in _cuda.
inline const char* problem_on_gpu(const FrameToPlaneParams& p) {
  if (const char* wrong = problem(p)) return wrong;
  if (!aligned(p.frame)) return "the frame has 16-bit samples at odd addresses";
  if (!aligned(p.plane.values, bytes_of(p.plane.type))) return "the plane is not aligned to its elements";
  if (!aligned(p.gain.range, 4) || !aligned(p.gain.table, 4)) return "the gain's floats are not aligned";
  return nullptr;
}

inline const char* problem_on_gpu(const PlaneToFrameParams& p) {
  if (const char* wrong = problem(p)) return wrong;
  if (!aligned(p.vis) || !aligned(p.out)) return "a frame has 16-bit samples at odd addresses";
  if (!aligned(p.fused.values, bytes_of(p.fused.type))) return "the fused plane is not aligned to its elements";
  return nullptr;
}

inline const char* problem_on_gpu(const Frame16& f) {
  if (f.height < 0 || f.width < 0) return "the frame has a negative size";
  if (f.height && f.width && f.height > 0xffffffff / f.width) return "the frame has more than 4294967295 pixels";
  if (!aligned(f.pixels, 2) || f.stride_y % 2 || f.stride_x % 2) return "the frame has samples at odd addresses";
  return nullptr;
}

inline const char* problem_on_gpu(const Percentiles16Params& p) {
  if (p.frame.height < 1 || p.frame.width < 1) return "the frame is empty";
  if (!(p.low >= 0 && p.low <= 100 && p.high >= 0 && p.high <= 100)) return "a percentage is not in 0..100";
  if (!aligned(p.counts, 16)) return "the counts are not aligned to 16 bytes";
  if (!aligned(p.range, 4) || !aligned(p.exact, 8)) return "the percentiles are not aligned to their elements";
  return problem_on_gpu(p.frame);
}

}  // namespace ldf
