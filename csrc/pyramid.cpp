#include "pyramid.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "frame_math.h"
#include "parallel.h"
#include "pyramid_math.h"

namespace ldf {
namespace {

using Index = std::int64_t;

constexpr Index kTile = 256;   // columns at a time, even: what a tile needs stays in the first cache, on the stack
constexpr Index kStrip = 32;   // rows a thread takes at a time
constexpr Index kPadded = kTile + 8;
constexpr int kIr = 0, kVis = 1;

struct Size {
  Index height, width;
  Index pixels() const { return height * width; }
};

Size halved(const Size& s) { return {(s.height + 1) / 2, (s.width + 1) / 2}; }

// Maps of one level and source, each of the level's size.
struct Maps {
  float *mean, *square;  // of 2x2 pixels of what the level smooths
  float *a, *b;          // what it is smoothed with
  float *smooth;         // and has become
  float *energy;         // mean square of the detail that was taken out
};

struct Level {
  Size size;
  Maps maps[2];
  float *k[2], *l;  // fused = k[0] * ir + k[1] * vis + l, of what the level smooths
};

struct Work {
  Level levels[kPyramidLevels];
  std::uint32_t* counts[kPyramidLevels][2];  // [kSteps]
  double* sums[2];                           // a sum and a sum of squares for each row of the finest level
  Index doubles;
};

// Lays the maps out in `workspace`; with null only counts.
Work laid_out(const Size& full, double* workspace) {
  Work work{};
  Index used = 0;
  const auto take = [&](Index doubles) {
    double* at = workspace ? workspace + used : nullptr;
    used += doubles;
    return at;
  };
  Size size = full;
  for (int i = 0; i < kPyramidLevels; ++i) {
    Level& level = work.levels[i];
    level.size = size = halved(size);
    const auto map = [&] { return reinterpret_cast<float*>(take((size.pixels() + 1) / 2)); };
    for (Maps& m : level.maps) m = {map(), map(), map(), map(), map(), map()};
    for (float*& k : level.k) k = map();
    level.l = map();
    for (auto*& counts : work.counts[i]) counts = reinterpret_cast<std::uint32_t*>(take(kSteps / 2));
  }
  for (double*& sums : work.sums) sums = take(work.levels[0].size.height);
  work.doubles = used;
  return work;
}

// Calls body(first row, end row) for strips of `size`; `nanoseconds` is for one pixel.
template <class Body>
void each_strip(const Size& size, Index nanoseconds, int threads, Body body) {
  const Index strips = (size.height + kStrip - 1) / kStrip;
  parallel_for(strips, size.pixels() * nanoseconds, threads, [&](Index begin, Index end) {
    for (Index s = begin; s < end; ++s) body(s * kStrip, std::min((s + 1) * kStrip, size.height));
  });
}

template <class Body>
void each_tile(Index width, Body body) {
  for (Index x = 0; x < width; x += kTile) body(x, std::min(x + kTile, width));
}

Index clamped(Index value, Index end) { return std::max<Index>(0, std::min(value, end - 1)); }

// ---- pixels in and out

LDF_CLONES void from_bytes(const std::uint8_t* from, Index n, float* to) {
  for (Index i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]) * (1.0f / 255.0f);
}

LDF_CLONES void from_floats(const float* from, Index n, float* to) {
  for (Index i = 0; i < n; ++i) to[i] = unit(from[i]);
}

LDF_CLONES void to_bytes(const float* from, Index n, std::uint8_t* to) {
  for (Index i = 0; i < n; ++i) to[i] = static_cast<std::uint8_t>(nearest(from[i] * 255.0f));
}

void read_tile(const Plane& plane, Index y, Index x0, Index x1, float* to) {
  const char* at = static_cast<const char*>(plane.values) + y * plane.stride_y + x0 * plane.stride_x;
  if (plane.type == PlaneType::u8 && plane.stride_x == 1) {
    from_bytes(reinterpret_cast<const std::uint8_t*>(at), x1 - x0, to);
  } else if (plane.type == PlaneType::f32 && plane.stride_x == sizeof(float)) {
    from_floats(reinterpret_cast<const float*>(at), x1 - x0, to);
  } else {
    for (Index x = x0; x < x1; ++x, at += plane.stride_x) *to++ = unit(read_element(plane.type, at));
  }
}

void write_tile(const Plane& plane, Index y, Index x0, Index x1, const float* from) {
  char* at = static_cast<char*>(plane.values) + y * plane.stride_y + x0 * plane.stride_x;
  if (plane.type == PlaneType::u8 && plane.stride_x == 1) {
    to_bytes(from, x1 - x0, reinterpret_cast<std::uint8_t*>(at));
  } else if (plane.type == PlaneType::f32 && plane.stride_x == sizeof(float)) {
    std::copy(from, from + (x1 - x0), reinterpret_cast<float*>(at));
  } else {
    for (Index x = x0; x < x1; ++x, at += plane.stride_x) write_element(plane.type, at, *from++);
  }
}

// ---- down: 2x2 pixels to their mean and mean square

LDF_CLONES void halve_row(const float* upper, const float* lower, Index width, float* __restrict mean,
                          float* __restrict square) {
  const Index whole = width / 2;
  for (Index i = 0; i < whole; ++i) {
    const float p = upper[2 * i], q = upper[2 * i + 1], r = lower[2 * i], s = lower[2 * i + 1];
    mean[i] = 0.25f * ((p + q) + (r + s));
    square[i] = 0.25f * ((p * p + q * q) + (r * r + s * s));
  }
  if (width % 2) {  // the last column stands twice
    const float p = upper[width - 1], r = lower[width - 1];
    mean[whole] = 0.5f * (p + r);
    square[whole] = 0.5f * (p * p + r * r);
  }
}

LDF_CLONES double sum_of(const float* values, Index n) {
  double lanes[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) lanes[j] += static_cast<double>(values[i + j]);
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(values[i]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Mean and variance from sums of every row, in their order, so that threads do not matter.
void mean_and_variance(const Work& work, double* mean, double* variance) {
  const Size& size = work.levels[0].size;
  double sum = 0, squares = 0;
  for (Index y = 0; y < size.height; ++y) {
    sum += work.sums[0][y];
    squares += work.sums[1][y];
  }
  const double n = static_cast<double>(size.pixels());
  *mean = sum / n;
  *variance = std::max(0.0, squares / n - *mean * *mean);
}

Standard halve_source(const Plane& plane, const Work& work, const Maps& to, float least_contrast, int threads) {
  const Size size = work.levels[0].size;
  each_strip(size, 3, threads, [&](Index begin, Index end) {
    float rows[2][kTile];
    for (Index y = begin; y < end; ++y) {
      float *mean = to.mean + y * size.width, *square = to.square + y * size.width;
      each_tile(plane.width, [&](Index x0, Index x1) {
        read_tile(plane, 2 * y, x0, x1, rows[0]);
        read_tile(plane, clamped(2 * y + 1, plane.height), x0, x1, rows[1]);
        halve_row(rows[0], rows[1], x1 - x0, mean + x0 / 2, square + x0 / 2);
      });
      work.sums[0][y] = sum_of(mean, size.width);
      work.sums[1][y] = sum_of(square, size.width);
    }
  });
  double mean, variance;
  mean_and_variance(work, &mean, &variance);
  const double least = static_cast<double>(least_contrast);
  return {static_cast<float>(mean), static_cast<float>(1.0 / std::sqrt(variance + least * least))};
}

void halve_map(const float* from, const Size& fine, const Maps& to, const Size& size, int threads) {
  each_strip(size, 2, threads, [&](Index begin, Index end) {
    for (Index y = begin; y < end; ++y) {
      const float* upper = from + 2 * y * fine.width;
      const float* lower = from + clamped(2 * y + 1, fine.height) * fine.width;
      halve_row(upper, lower, fine.width, to.mean + y * size.width, to.square + y * size.width);
    }
  });
}

// ---- smoothing

// Sums of three rows for columns x0 - 1 to x1 of a map, which ends repeat: to[0] is column x0 - 1.
inline void add_rows(const float* r0, const float* r1, const float* r2, Index x0, Index x1, Index width, float* to) {
  const Index low = x0 > 0 ? x0 - 1 : 0, high = x1 < width ? x1 + 1 : width;
  float* at = to + (low - (x0 - 1));
  for (Index i = 0; i < high - low; ++i) at[i] = (r0[low + i] + r1[low + i]) + r2[low + i];
  if (x0 == 0) to[0] = to[1];
  if (x1 == width) to[x1 - x0 + 1] = to[x1 - x0];
}

inline float ninth_of(const float* sums) { return (1.0f / 9.0f) * ((sums[0] + sums[1]) + sums[2]); }

// One row of a tile, before A and B are averaged. Index 0 is column x0 - 1 of the tile; columns outside repeat.
struct Guides {
  float a[kPadded], b[kPadded], variance[kPadded];
};

// Columns x0 to x1 of row y.
LDF_CLONES void guide_row(const Maps& maps, const Size& size, Index y, Index x0, Index x1, const Edge& edge,
                          float* __restrict a, float* __restrict b, float* __restrict variance) {
  const Index rows[3] = {clamped(y - 1, size.height) * size.width, y * size.width,
                         clamped(y + 1, size.height) * size.width};
  float means[kPadded] = {}, squares[kPadded] = {};
  add_rows(maps.mean + rows[0], maps.mean + rows[1], maps.mean + rows[2], x0, x1, size.width, means);
  add_rows(maps.square + rows[0], maps.square + rows[1], maps.square + rows[2], x0, x1, size.width, squares);
  for (Index i = 0; i < x1 - x0; ++i) {
    const float mean = ninth_of(means + i);
    const float v = larger(ninth_of(squares + i) - mean * mean, 0.0f);
    const float kept = v / (v + edge_at(mean, v, edge));
    a[i] = kept;
    b[i] = (1.0f - kept) * mean;
    variance[i] = v;
  }
}

// The tile's row y with its neighbours left and right.
void guides_of(const Maps& maps, const Size& size, Index y, Index x0, Index x1, const Edge& edge, Guides* to) {
  const Index low = x0 > 0 ? x0 - 1 : 0, high = std::min(x1 + 1, size.width), at = low - (x0 - 1);
  guide_row(maps, size, clamped(y, size.height), low, high, edge, to->a + at, to->b + at, to->variance + at);
  if (x0 == 0) {
    to->a[0] = to->a[1];
    to->b[0] = to->b[1];
  }
  if (x1 == size.width) {
    to->a[x1 - x0 + 1] = to->a[x1 - x0];
    to->b[x1 - x0 + 1] = to->b[x1 - x0];
  }
}

// n pixels from the guides of three rows; results are in standard values.
LDF_CLONES void smooth_row(const Guides& above, const Guides& here, const Guides& below, const float* mean, Index n,
                           Standard standard, float* __restrict a, float* __restrict b, float* __restrict smooth,
                           float* __restrict energy) {
  float as[kPadded], bs[kPadded];
  for (Index i = 0; i < n + 2; ++i) {
    as[i] = (above.a[i] + here.a[i]) + below.a[i];
    bs[i] = (above.b[i] + here.b[i]) + below.b[i];
  }
  for (Index i = 0; i < n; ++i) {
    const float kept = ninth_of(as + i), lost = 1.0f - kept;
    const float offset = (ninth_of(bs + i) - lost * standard.mean) * standard.scale;
    a[i] = kept;
    b[i] = offset;
    smooth[i] = kept * ((mean[i] - standard.mean) * standard.scale) + offset;
    energy[i] = (lost * lost) * (here.variance[i + 1] * (standard.scale * standard.scale));
  }
}

// `standard` turns the values of mean and square into standard ones, as all further ones are.
void smooth_level(const Maps& maps, const Size& size, const Edge& edge, Standard standard, int threads) {
  each_strip(size, 8, threads, [&](Index begin, Index end) {
    each_tile(size.width, [&](Index x0, Index x1) {
      Guides ring[3];
      const auto slot = [&](Index y) -> Guides& { return ring[(y + 3) % 3]; };
      guides_of(maps, size, begin - 1, x0, x1, edge, &slot(begin - 1));
      guides_of(maps, size, begin, x0, x1, edge, &slot(begin));
      for (Index y = begin; y < end; ++y) {
        guides_of(maps, size, y + 1, x0, x1, edge, &slot(y + 1));
        const Index at = y * size.width + x0;
        smooth_row(slot(y - 1), slot(y), slot(y + 1), maps.mean + at, x1 - x0, standard, maps.a + at, maps.b + at,
                   maps.smooth + at, maps.energy + at);
      }
    });
  });
}

// ---- noise

// The energy that a part `quiet` of the pixels stays below.
float quiet_energy(const float* energy, Index pixels, float quiet, std::uint32_t* counts) {
  std::fill(counts, counts + kSteps, 0u);
  for (Index i = 0; i < pixels; ++i) ++counts[step_of(energy[i])];
  const double wanted = static_cast<double>(quiet) * static_cast<double>(pixels);
  double seen = 0;
  std::int32_t step = 0;
  while (step < kSteps - 1 && seen + counts[step] <= wanted) seen += counts[step++];
  const double part = counts[step] ? std::min(1.0, (wanted - seen) / counts[step]) : 0.0;
  const double low = static_cast<double>(value_of_step(step)), high = static_cast<double>(value_of_step(step + 1));
  return static_cast<float>(low + part * (high - low));
}

// ---- up: the coefficients, from coarse to fine

// Columns x0 (even) to x1 of a row between rows `near` and `far` of a map of half the size; may write one more.
LDF_CLONES void double_row(const float* near, const float* far, Index width, Index x0, Index x1, float* to) {
  const Index first = x0 / 2, n = (x1 + 1) / 2 - first;
  const Index low = first > 0 ? first - 1 : 0, high = first + n < width ? first + n + 1 : width;
  float row[kPadded] = {};  // row[0] is column first - 1
  float* at = row + (low - (first - 1));
  for (Index i = 0; i < high - low; ++i) at[i] = between(far[low + i], near[low + i]);
  if (first == 0) row[0] = row[1];
  if (first + n == width) row[n + 1] = row[n];
  for (Index i = 0; i < n; ++i) {
    to[2 * i] = between(row[i], row[i + 1]);
    to[2 * i + 1] = between(row[i + 2], row[i + 1]);
  }
}

// A tile's coefficients of one row.
struct Coefficients {
  float k[2][kPadded], l[kPadded];
};

void doubled(const Level& coarse, Index y, Index x0, Index x1, Coefficients* to) {
  const Index near = y / 2 * coarse.size.width;
  const Index far = clamped(y / 2 + (y % 2 ? 1 : -1), coarse.size.height) * coarse.size.width;
  for (int s = 0; s < 2; ++s) double_row(coarse.k[s] + near, coarse.k[s] + far, coarse.size.width, x0, x1, to->k[s]);
  double_row(coarse.l + near, coarse.l + far, coarse.size.width, x0, x1, to->l);
}

// What is below the coarsest level.
LDF_CLONES void base_row(const float* ir, const float* vis, Index n, float hot, float lift, float room,
                          Coefficients* to) {
  for (Index i = 0; i < n; ++i) {
    const float share = base_share(ir[i], vis[i], hot, lift), kept = kept_of_hot(ir[i], hot, room);
    to->k[kIr][i] = share * kept;
    to->k[kVis][i] = 1.0f - share;
    to->l[i] = share * (1.0f - kept) * hot;
  }
}

struct Gains {
  Detail detail[2];
  float floor, gain, per_strong;
  std::int32_t choice;
};

// Adds a level's detail: the coefficients of what it has smoothed become those of what it smooths.
LDF_CLONES void add_detail(const Maps* maps, Index at, Index n, const Gains g, const Coefficients& below,
                           float* __restrict ka, float* __restrict kb, float* __restrict l) {
  const float *ea = maps[kIr].energy + at, *eb = maps[kVis].energy + at;
  const float *aa = maps[kIr].a + at, *ab = maps[kVis].a + at, *ba = maps[kIr].b + at, *bb = maps[kVis].b + at;
  const Detail da = g.detail[kIr], db = g.detail[kVis];
  for (Index i = 0; i < n; ++i) {
    const float claim_a = claim(ea[i], da, g.choice), claim_b = claim(eb[i], db, g.choice);
    const float share = claim_a / (claim_a + claim_b);
    const float wa = share * gain_of(ea[i], da, g.floor, g.gain, g.per_strong);
    const float wb = (1.0f - share) * gain_of(eb[i], db, g.floor, g.gain, g.per_strong);
    const float rest_a = below.k[kIr][i] - wa, rest_b = below.k[kVis][i] - wb;
    ka[i] = wa + rest_a * aa[i];
    kb[i] = wb + rest_b * ab[i];
    l[i] = below.l[i] + (rest_a * ba[i] + rest_b * bb[i]);
  }
}

// fused = ka a + kb b + l of standard values.
LDF_CLONES void apply(const float* ka, const float* kb, const float* l, const float* a, const float* b, Index n,
                      Standard of_a, Standard of_b, float* fused) {
  for (Index i = 0; i < n; ++i) {
    fused[i] = (ka[i] * ((a[i] - of_a.mean) * of_a.scale) + kb[i] * ((b[i] - of_b.mean) * of_b.scale)) + l[i];
  }
}

LDF_CLONES double sum_of_squares(const float* values, Index n) {
  float squares[kTile];
  for (Index i = 0; i < n; ++i) squares[i] = values[i] * values[i];
  return sum_of(squares, n);
}

void fill_coefficients(const PyramidLook& look, const Work& work, int index, const Standard* standards, int threads) {
  const Level& level = work.levels[index];
  const Maps* maps = level.maps;
  Gains gains{{}, look.floor_gain, look.gain[index], 1.0f / (look.strong * look.strong),
              look.choice[index]};
  for (int s = 0; s < 2; ++s) {
    const float quiet = quiet_energy(maps[s].energy, level.size.pixels(), look.quiet, work.counts[index][s]);
    const float least = larger(look.least_noise, look.coding_noise * standards[s].scale);
    gains.detail[s] = detail_of(larger(std::sqrt(quiet), least), look.coring);
  }
  each_strip(level.size, 8, threads, [&](Index begin, Index end) {
    Coefficients below;
    for (Index y = begin; y < end; ++y) {
      if (index == 0) work.sums[0][y] = work.sums[1][y] = 0;
      each_tile(level.size.width, [&](Index x0, Index x1) {
        const Index at = y * level.size.width + x0, n = x1 - x0;
        if (index + 1 < kPyramidLevels) {
          doubled(work.levels[index + 1], y, x0, x1, &below);
        } else {
          base_row(maps[kIr].smooth + at, maps[kVis].smooth + at, n, look.hot, look.hot_lift, look.hot_room,
                   &below);
        }
        add_detail(maps, at, n, gains, below, level.k[kIr] + at, level.k[kVis] + at, level.l + at);
        if (index == 0) {
          float fused[kTile];
          apply(level.k[kIr] + at, level.k[kVis] + at, level.l + at, maps[kIr].mean + at, maps[kVis].mean + at, n,
                standards[kIr], standards[kVis], fused);
          work.sums[0][y] += sum_of(fused, n);
          work.sums[1][y] += sum_of_squares(fused, n);
        }
      });
    }
  });
}

LDF_CLONES void tone_row(float* values, Index n, Tone tone) {
  for (Index i = 0; i < n; ++i) values[i] = toned(values[i], tone);
}

void write_fused(const PyramidParams& p, const Level& finest, const Standard* standards, const Tone& tone,
                 int threads) {
  each_strip({p.fused.height, p.fused.width}, 4, threads, [&](Index begin, Index end) {
    Coefficients c;
    float ir[kTile], vis[kTile], fused[kTile];
    for (Index y = begin; y < end; ++y) {
      each_tile(p.fused.width, [&](Index x0, Index x1) {
        const Index n = x1 - x0;
        doubled(finest, y, x0, x1, &c);
        read_tile(p.ir, y, x0, x1, ir);
        read_tile(p.vis, y, x0, x1, vis);
        apply(c.k[kIr], c.k[kVis], c.l, ir, vis, n, standards[kIr], standards[kVis], fused);
        tone_row(fused, n, tone);
        write_tile(p.fused, y, x0, x1, fused);
      });
    }
  });
}

}  // namespace

std::int64_t pyramid_workspace(std::int64_t height, std::int64_t width) {
  return laid_out({height, width}, nullptr).doubles;
}

void pyramid_cpu(const PyramidParams& p, int threads) {
  const Work work = laid_out({p.fused.height, p.fused.width}, p.workspace);
  const Plane* planes[2] = {&p.ir, &p.vis};
  Standard standards[2];
  for (int s = 0; s < 2; ++s) {
    standards[s] = halve_source(*planes[s], work, work.levels[0].maps[s], p.look.least_contrast, threads);
    for (int i = 0; i < kPyramidLevels; ++i) {
      const Level& level = work.levels[i];
      if (i > 0) {
        const Level& finer = work.levels[i - 1];
        halve_map(finer.maps[s].smooth, finer.size, level.maps[s], level.size, threads);
      }
      const Standard standard = i ? Standard{0, 1} : standards[s];
      smooth_level(level.maps[s], level.size, edge_of(p.look, i, s == kIr, standard), standard, threads);
    }
  }
  for (int i = kPyramidLevels - 1; i >= 0; --i) fill_coefficients(p.look, work, i, standards, threads);
  double mean, variance;  // of the fused picture, at half its size
  mean_and_variance(work, &mean, &variance);
  write_fused(p, work.levels[0], standards, tone_of(p.look, mean, variance), threads);
}

}  // namespace ldf
