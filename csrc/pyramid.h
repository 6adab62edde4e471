// Fusion of two planes without a network: an edge-preserving pyramid that knows noise from detail.
//
// Each level smooths a source x as a guided filter guided by itself does (He, Sun & Tang 2013): g = A x + B with
// A = v / (v + edge), where v is the variance round a pixel. Steps with a variance well above `edge` stay in g, so the
// detail x - g has none of them, and raising it makes no halos. The next level does the same to g, at half the size.
// Of the infrared, steps beside hot things stay sooner: `edge` shrinks where mean and deviation together reach `hot`.
// From the coarsest level up, each level's detail is added to the fused base below it:
//
//   fused = Ka a + Kb b + L   with, per level and source,   K <- w + (K - w) A,   L <- L + (K - w) B
//
// where w is the gain of the source's detail times its share. So all that happens at full size is one sum of products;
// the coefficients are those of half the size, interpolated.
#pragma once

#include <cstdint>

#include "frame.h"

namespace ldf {

constexpr int kPyramidLevels = 3;  // windows of 6, 12 and 24 pixels

// What the picture looks like. Amplitudes are in deviations of a source, which is standardised first.
struct PyramidLook {
  float edge[kPyramidLevels];    // > 0; variance from which a step is kept rather than taken for detail; finest first
  float gain[kPyramidLevels];    // of clear detail
  std::int32_t choice[kPyramidLevels];  // 1, 2 or 4: how hard the choice between the sources is
  float strong;                  // > 0; amplitude of detail above which the gain returns to 1
  float coring;                  // > 0; amplitude, in noise floors, at which detail is half gone
  float floor_gain;              // what is left of detail deep in the noise
  float quiet;                   // the noise floor of a level: what this part of the picture stays below, 0..1,
  float least_noise;             // > 0; but at least this,
  float coding_noise;            // and this in the sources' units [0, 1]: steps of a grey level, blocks of a codec
  float least_contrast;          // > 0; deviation, of [0, 1], below which a source is not raised to the other's contrast
  float hot;                     // infrared level above which things count as hot,
  float hot_lift;                // and how far the base follows them beyond the mean of both, 0..1,
  float hot_room;                // > 0; by how much at most they exceed `hot` there: what they show within is detail
  float hot_keep;                // how much sooner than elsewhere steps of the infrared are kept beside them, 0..1
  float mean, deviation;         // of the finished picture, of [0, 1]
  float knee;                    // distance from the mean beyond which highlights and shadows bend
};

struct PyramidParams {
  Plane ir, vis;  // u8 or f32, of one size from 1x1; values outside [0, 1] are clipped, NaN is 0
  Plane fused;    // u8 (nearest, halves to even) or f32, of that size, overwritten; overlaps neither source
  PyramidLook look;
  double* workspace;  // as many as pyramid_workspace says, of any content
};

// Doubles of workspace: about 21 bytes a pixel.
std::int64_t pyramid_workspace(std::int64_t height, std::int64_t width);

// On at most `threads` threads; the result does not depend on how many.
void pyramid_cpu(const PyramidParams& params, int threads);

}  // namespace ldf
