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

enum class Pixel : std::int32_t { u8, f32, f64, f16, bf16 };  // the last two on a GPU only

struct EntropyParams {
  const void* pixels;      // the first pixel of patch 0, or of the image when there are boxes
  Pixel type;
  std::int64_t count;      // patches, N
  std::int64_t height;     // of every patch, > 0; of the image when there are boxes; below 2^30 on a GPU, as is width
  std::int64_t width;
  std::int64_t stride_n;   // bytes from one patch to the next, any sign; not read when there are boxes
  std::int64_t stride_y;   // bytes from one row to the next
  std::int64_t stride_x;   // bytes from one pixel to the next
  const std::int32_t* boxes;  // null, or [N, 4] as x, y, width > 0, height > 0, checked to lie inside the image
  double* bits;            // [N], written
};

// Square boxes cut from planes and resampled through an affine map, as trainer/patches.py cuts its patches, without
// storing them: pixel (x, y) of a patch lies at ((x + 1/2) side / size - side / 2, the same of y) from the centre of
// its box, its map leads from there to where it is looked up, also from the centre. Bilinear between pixel centres;
// 0 beyond the box; in the outermost half pixel the outermost pixel. Nothing beside the box is looked at.
struct EntropyAffineParams {
  const void* planes;      // the first pixel of plane 0
  Pixel type;              // CPU: f32; GPU: f32, f16, bf16
  std::int64_t count;      // planes, P
  std::int64_t stride_p;   // bytes from one plane to the next, any sign
  std::int64_t stride_y;   // bytes from one row to the next
  std::int64_t stride_x;   // bytes from one pixel to the next
  std::int64_t patches;    // M
  const std::int32_t* boxes;  // [M, 3] as left, top, side from 1 to 2^24, checked to lie inside the planes
  const float* maps;       // [M, 2, 3], finite: (x, y, 1) of the patch -> x and y in the box
  std::int32_t size;       // side of a patch, pixels, 1 to 2^24
  double* bits;            // [M, P], written
};

// On at most `threads` threads of this CPU. Here pixels may have any alignment,
void entropy_cpu(const EntropyParams& params, int threads);
// and here they and their strides are aligned for their type.
void entropy_affine_cpu(const EntropyAffineParams& params, int threads);

// The same on a GPU: all pointers are the device's, pixels and strides aligned for their type. Runs after what
// `stream` holds. Few large patches are shared among blocks, which leave their counts in `workspace`: as many bytes
// of device memory as entropy_workspace_bytes says, aligned to 4, of any content; null where that is 0.
// The status says whether the launch was accepted, not how it ended.
std::int64_t entropy_workspace_bytes(const EntropyParams& params);
std::int64_t entropy_affine_workspace_bytes(const EntropyAffineParams& params);
Status entropy_cuda(const EntropyParams& params, void* workspace, Stream stream);
Status entropy_affine_cuda(const EntropyAffineParams& params, void* workspace, Stream stream);

}  // namespace ldf
