// How AdaIN's planes are shared out among blocks, forward and backward: whole ones, or in tiles and two steps.
#pragma once

#include "norm_tiles.cuh"

namespace ldf {

// Planes that a block holds whole, when there are nearly as many as SMs; short ones still cost less than two steps.
inline bool held_whole(Layout layout, std::int64_t planes, std::int64_t bytes, int batch) {
  return layout == Layout::nchw && ratio_up(bytes, 16) <= batch * kThreads && (planes >= 96 || bytes <= 16 * 1024);
}

inline unsigned threads_for(std::int64_t vectors, int batch) {
  unsigned threads = 32;
  while (threads < kThreads && threads * batch < 2 * vectors) threads *= 2;
  return threads;
}

// What is left of planes in two steps; bytes_each: of a plane's pixels, in all tensors that are read.
struct Split {
  Cut cut;          // NCHW
  Columns columns;  // NHWC
  Plan plan;
  std::int64_t progress, found, partials;  // bytes of the workspace's parts, multiples of 16

  Split(Layout layout, Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels, int tensors)
      : cut(cut_of(pixels, type, kBatch / tensors)), columns(columns_of(c, pixels, type, kBatch / tensors)) {
    const bool nchw = layout == Layout::nchw;
    const std::int64_t groups = nchw ? n * c : n * columns.slabs, tiles = nchw ? cut.tiles : columns.tiles;
    const std::int64_t width = nchw ? 1 : columns.lanes * (16 / size_of(type));
    plan = plan_of(groups, pixels * width * size_of(type) * tensors, tiles, tiles);
    progress = progress_bytes(groups);
    found = ratio_up(n * c, 2) * 16;
    partials = ratio_up(groups * tiles * width, 2) * 16;
  }
  std::int64_t bytes() const { return progress + found + partials; }
};

}  // namespace ldf
