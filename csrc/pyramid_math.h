// The arithmetic of the edge-preserving pyramid, for CPU and CUDA alike.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common.h"
#include "pyramid.h"

namespace ldf {

LDF_HD inline float larger(float a, float b) { return a > b ? a : b; }
LDF_HD inline float smaller(float a, float b) { return a < b ? a : b; }

// NaN becomes 0.
LDF_HD inline float unit(float value) { return smaller(larger(value, 0.0f), 1.0f); }

// From 0 at 0 to 1 at 1, level at both ends and outside.
LDF_HD inline float smooth_step(float value) {
  const float t = unit(value);
  return t * t * (3.0f - 2.0f * t);
}

// Bilinear interpolation to twice the size, pixel centres at halves: a quarter of one neighbour, the rest of the other.
LDF_HD inline float between(float far, float near) { return 0.25f * far + 0.75f * near; }

// A source's values to standard ones, (x - mean) / deviation.
struct Standard {
  float mean, scale;  // scale is 1 / deviation
};

// From which variance a level keeps steps, in the units of its values, and how much sooner beside hot things.
struct Edge {
  float variance;
  float hot, per_width;  // what is hot begins at `hot` and is wholly so 1 / per_width above it
  float keep;            // how much sooner, 0..1
};

inline Edge edge_of(const PyramidLook& look, int level, bool infrared, const Standard& standard) {
  return {look.edge[level] / (standard.scale * standard.scale), standard.mean + look.hot / standard.scale,
          standard.scale, infrared ? look.hot_keep : 0.0f};
}

// Where mean and variance round a pixel are those. A dark pixel beside something hot has a high deviation.
LDF_HD inline float edge_at(float mean, float variance, const Edge& edge) {
  const float near_hot = smooth_step((mean + std::sqrt(variance) - edge.hot) * edge.per_width);
  return edge.variance * (1.0f - edge.keep * near_hot);
}

// What a level needs of a source's detail, in its standard values.
struct Detail {
  float noise;      // amplitude of the noise floor
  float half_gone;  // 1 / (coring * noise)^2
};

LDF_HD inline Detail detail_of(float noise, float coring) {
  return {noise, 1.0f / (coring * coring * noise * noise)};
}

// Energy of detail -> how much it counts when the sources compete: what is noise in one must not win over quiet detail
// of the other. A power of the amplitude above the noise; the higher, the harder the choice.
LDF_HD inline float claim(float energy, const Detail& d, std::int32_t choice) {
  const float clear = larger(std::sqrt(energy) - d.noise, 0.0f) + 1e-4f, square = clear * clear;
  return choice == 1 ? clear : choice == 2 ? square : square * square;
}

// Energy of detail -> its gain: `floor` in the noise, `gain` above it, 1 again where it is strong. The bend between is
// steep, because noise and faint texture are a factor of two apart, not ten.
LDF_HD inline float gain_of(float energy, const Detail& d, float floor, float gain, float per_strong) {
  const float ratio = energy * d.half_gone, clear = ratio * ratio, strong = energy * per_strong;
  return ((floor + clear) * (gain + strong)) / ((1.0f + clear) * (1.0f + strong));
}

// Share of the infrared in the base: half, and more where it is hot and brighter than the visible; standard values.
LDF_HD inline float base_share(float ir, float vis, float hot, float lift) {
  return 0.5f + 0.5f * lift * unit(2.0f * (ir - vis)) * smooth_step(ir - hot + 0.5f);
}

// From 0 towards 1, never reached: slope and value of a straight line at 0.
LDF_HD inline float bend(float x) { return x / std::sqrt(1.0f + x * x); }

// What the base keeps of the infrared's distance from `hot`: ever less beyond it, so that at most `room` is left.
LDF_HD inline float kept_of_hot(float ir, float hot, float room) {
  const float over = larger(ir - hot, 0.0f) / room;
  return 1.0f / std::sqrt(1.0f + over * over);
}

// A fused value, in standard values of the sources, to the finished picture's.
struct Tone {
  float scale, shift;  // to distances from the mean
  float mean, knee;
  float room_above, room_below;  // from the knee to what a highlight or a shadow can reach
};

inline Tone tone_of(const PyramidLook& look, double mean, double variance) {
  Tone t;
  // A picture of hardly any contrast is not stretched to a full one: its deviation counts as at least a fifth.
  t.scale = static_cast<float>(look.deviation / std::sqrt(variance + 0.04));
  t.shift = static_cast<float>(-mean * t.scale);
  t.mean = look.mean;
  t.knee = look.knee;
  t.room_above = larger(1.0f - look.mean - look.knee, 0.02f);
  t.room_below = larger(look.mean - look.knee, 0.02f);
  return t;
}

LDF_HD inline float toned(float value, const Tone& t) {
  const float x = value * t.scale + t.shift;
  const float above = larger(x - t.knee, 0.0f), below = larger(-x - t.knee, 0.0f);
  const float bent = x - above + t.room_above * bend(above / t.room_above) + below -
                     t.room_below * bend(below / t.room_below);
  return unit(bent + t.mean);
}

// A place on a scale of 128 steps an octave, for histograms of energies: monotonic, positive for positive numbers.
LDF_HD inline std::int32_t step_of(float value) {
  std::int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits >> 16;
}

inline float value_of_step(std::int32_t step) {
  const std::int32_t bits = step << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
constexpr std::int32_t kSteps = 1 << 15;

}  // namespace ldf
