// How AdaIN's planes are shared out among blocks, forward and backward: held whole by one, or split over many.
#pragma once

#include "norm_tiles.cuh"

namespace ldf {

// A plane is held when there are nearly as many as SMs; below that, short ones still cost less than a second launch.
inline bool worth_holding(std::int64_t planes, std::int64_t bytes) { return planes >= 96 || bytes <= 16 * 1024; }

constexpr std::int64_t kHeldEverywhere = 40 * 1024;  // bytes that fit into shared memory on every GPU

inline unsigned held_threads(std::int64_t vectors) {
  unsigned threads = 64;
  while (threads < 1024 && threads * kBatch < vectors) threads *= 2;
  return threads;
}

// How planes that are not held are shared out; `tensors`: how many of x's size are read.
struct Split {
  std::int64_t lot;  // planes (NCHW) or samples (NHWC)
  Cut cut;           // of a plane (NCHW)
  Columns columns;   // of a lot (NHWC)
  std::int64_t partials;  // results of the first step, in all
};

inline Split split_of(Layout layout, Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels, int tensors) {
  Split s{};
  const std::int64_t plane_bytes = pixels * size_of(type) * tensors;
  if (layout == Layout::nchw) {
    s.lot = lot_of(n * c, plane_bytes);
    s.cut = cut_of(s.lot, pixels, type);
    s.partials = s.lot * s.cut.chunks;
  } else {
    s.lot = lot_of(n, c * plane_bytes);
    s.columns = columns_of(s.lot, c, pixels, type);
    s.partials = s.lot * s.columns.chunks * c;
  }
  return s;
}

}  // namespace ldf
