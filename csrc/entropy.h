// Shannon entropy of the grey-level histogram of many patches, in bits (0 to 8).
//
// The histogram has 256 equal bins on [0, 1], the last one closed; values outside and NaN are not counted. For
// 8-bit pixels the value is the bin, which agrees with binning value / 255. With nothing counted the entropy is 0.
// (LDFusion, Eq. 17: a patch takes part in the loss only above 6 bits.)
#pragma once

#include <cstdint>

#include "common.h"
#include "status.h"

namespace ldf {

enum class Pixel : std::int32_t { u8, f32, f64 };

struct EntropyParams {
  const void* pixels;      // the first pixel of patch 0, or of the image when there are boxes; any alignment
  Pixel type;
  std::int64_t count;      // patches, N
  std::int64_t height;     // of every patch, > 0; not read when there are boxes
  std::int64_t width;
  std::int64_t stride_n;   // bytes from one patch to the next, any sign; not read when there are boxes
  std::int64_t stride_y;   // bytes from one row to the next
  std::int64_t stride_x;   // bytes from one pixel to the next
  const std::int32_t* boxes;  // null, or [N, 4] as x, y, width > 0, height > 0, checked to lie inside the image
  double* bits;            // [N], written
};

// On at most `threads` threads of this CPU.
void entropy_cpu(const EntropyParams& params, int threads);

// The same on a GPU: all pointers are the device's, aligned for their type; runs after what `stream` holds.
// The status says whether the launch was accepted, not how it ended.
Status entropy_cuda(const EntropyParams& params, Stream stream);

}  // namespace ldf
