// The norms forward, in two steps: moments of every tile; then, with a group's moments put together, the map. Shared by
// AdaIN (scope: plane) and the decoder's norm (scope: sample).
//
// Moments are of differences to the first value of the plane (or sample), a member of it, so that floats keep the
// digits of a spread far below the mean.
#pragma once

#include <type_traits>

#include "adain_math.h"
#include "block_sum.cuh"
#include "norm_tiles.cuh"

namespace ldf {

enum class Scope { plane, sample };

// Two floats that blocks of one launch leave for each other; see fresh().
struct alignas(8) Partial {  // a tile's moments; its count follows from its place
  float mean, m2;
};
struct alignas(8) Found {  // of a plane or sample; `offset` is the mean minus the first value
  float offset, deviation;  // plane: 1 / deviation; sample: the unbiased deviation, without eps
};

// What another block has written in this launch: from L2, since L1 may hold what was there before.
template <class Two>
__device__ Two fresh(const Two* at) {
  const float2 both = __ldcg(reinterpret_cast<const float2*>(at));
  return {both.x, both.y};
}

// What the map of (n, c) is made of. Scope plane: weight and bias are [N, C]; scope sample: [C].
struct Style {
  const float* weight;  // or null: 1
  const float* bias;    // or null: 0
  float eps;
  bool relu;
};

template <Scope kScope>
__device__ float rstd_of(const Found& found, float eps) {
  return kScope == Scope::plane ? found.deviation : sample_rstd(found.deviation, eps);
}

// `at`: of the plane (scope plane) or channel.
template <Scope kScope>
__device__ AdainMap map_of(float first, const Found& found, const Style& style, std::int64_t at) {
  const float scale = (style.weight ? style.weight[at] : 1.0f) * rstd_of<kScope>(found, style.eps);
  return {first, scale, (style.bias ? style.bias[at] : 0.0f) - found.offset * scale};
}

struct Forward {
  const void* x;
  const void* residual;  // or null
  void* y;
  std::int64_t c, pixels;
  Style style;
  float* offset;     // or null: where Found is kept for backward
  float* deviation;  // or null
  Partial* partials;
  Found* found;
};

template <Scope kScope>
__device__ void keep(const Forward& p, std::int64_t at, const Moments& all) {
  const Found found{all.mean, kScope == Scope::plane ? plane_rstd(all, p.style.eps) : sample_std(all)};
  p.found[at] = found;
  if (p.offset) p.offset[at] = found.offset;
  if (p.deviation) p.deviation[at] = found.deviation;
}

// Adds kCount values in registers to `set`, in two passes of their own.
template <int kCount>
__device__ void absorb(Moments& set, const float (&values)[kCount]) {
  float sum = 0.0f, m2 = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += values[i];
  const float mean = sum * (1.0f / kCount);
#pragma unroll
  for (int i = 0; i < kCount; ++i) m2 += (values[i] - mean) * (values[i] - mean);
  set = combine(set, {static_cast<float>(kCount), mean, m2});
}

// max(v, 0); NaN stays.
template <class T>
__device__ Vector<T> rectified(const Vector<T>& v) {
  Vector<T> result{};
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) set_element(result, i, from_float<T>(rectified(to_float(element(v, i)))));
  return result;
}
#if __CUDA_ARCH__ >= 800
template <class Two>
__device__ std::uint32_t rectified_words(std::uint32_t word, Two zero) {
  Two two;
  std::memcpy(&two, &word, sizeof(two));
  two = __hmax2_nan(two, zero);
  std::memcpy(&word, &two, sizeof(two));
  return word;
}
template <>
__device__ inline Vector<Half> rectified(const Vector<Half>& v) {
  Vector<Half> result;
  for (int i = 0; i < 4; ++i) result.words[i] = rectified_words(v.words[i], __floats2half2_rn(0.0f, 0.0f));
  return result;
}
template <>
__device__ inline Vector<Bfloat16> rectified(const Vector<Bfloat16>& v) {
  Vector<Bfloat16> result;
  for (int i = 0; i < 4; ++i) result.words[i] = rectified_words(v.words[i], __floats2bfloat162_rn(0.0f, 0.0f));
  return result;
}
#endif

// y of one vector of x; `map_at(i)` is the map of its element i.
template <class T, class MapAt>
__device__ Vector<T> mapped(const Vector<T>& x, bool relu, MapAt map_at) {
  float values[Vector<T>::kSize];
  unpack(x, values);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) values[i] = adain_apply(values[i], map_at(i));
  const Vector<T> y = pack(values, T{});
  return relu ? rectified(y) : y;
}
template <class T, class MapAt>
__device__ Vector<T> mapped(const Vector<T>& x, const Vector<T>& residual, MapAt map_at) {
  float values[Vector<T>::kSize];
  unpack(x, values);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    values[i] = adain_apply(values[i], map_at(i)) + to_float(element(residual, i));
  }
  return pack(values, T{});
}

// What a tile or column holds goes through the map and is written; residuals are read a few at a time, since registers
// are few.
template <class T, int kCount, class MapAt, class Load, class Store>
__device__ void map_all(const Vector<T> (&v)[kCount], bool relu, bool residual, MapAt map_at, Load load_residual,
                        Store store) {
  if (!residual) {
#pragma unroll
    for (int u = 0; u < kCount; ++u) store(u, mapped(v[u], relu, map_at));
    return;
  }
  constexpr int kTogether = 2;
#pragma unroll
  for (int u = 0; u < kCount; u += kTogether) {
    Vector<T> r[kTogether];
#pragma unroll
    for (int w = 0; w < kTogether; ++w) r[w] = load_residual(u + w);
#pragma unroll
    for (int w = 0; w < kTogether; ++w) store(u + w, mapped(v[u + w], r[w], map_at));
  }
}

// ---- runs

// Moments of a tile of a run; thread 0 gets them.
template <class T, int kCount>
__device__ Moments moments_of(const T* run, const RunTile<T>& tile, const Vector<T> (&v)[kCount], float first) {
  constexpr int kSize = Vector<T>::kSize, kTogether = kSize == 4 ? 4 : 2;
  static_assert(kCount % kTogether == 0);
  __shared__ Moments scratch[kThreads / 32];
  Moments own[1] = {};
#pragma unroll
  for (int u = 0; u < kCount; u += kTogether) {
    if (tile.has(u + kTogether - 1)) {
      float d[kTogether * kSize];
#pragma unroll
      for (int i = 0; i < kTogether * kSize; ++i) d[i] = to_float(element(v[u + i / kSize], i % kSize)) - first;
      absorb(own[0], d);
      continue;
    }
#pragma unroll
    for (int w = u; w < u + kTogether - 1; ++w) {
      float d[kSize];
#pragma unroll
      for (int i = 0; i < kSize; ++i) d[i] = to_float(element(v[w], i)) - first;
      if (tile.has(w)) absorb(own[0], d);
    }
  }
  if (const std::int64_t i = tile.loose(); i >= 0) own[0] = combine(own[0], {1.0f, to_float(run[i]) - first, 0.0f});
  return block_fold(own, 1, scratch);
}

template <class T, int kCount>
__device__ void apply(const Forward& p, const T* x, std::int64_t plane, const RunTile<T>& tile,
                      const Vector<T> (&v)[kCount], const AdainMap& map) {
  const T* residual = p.residual ? static_cast<const T*>(p.residual) + plane * p.pixels : nullptr;
  T* y = static_cast<T*>(p.y) + plane * p.pixels;
  const bool aligned = is_aligned(y + tile.begin), residual_aligned = is_aligned(residual + tile.begin);
  map_all(
      v, p.style.relu, residual != nullptr, [&](int) { return map; },
      [&](int u) { return tile.has(u) ? load_part(residual + tile.at(u), residual_aligned) : Vector<T>{}; },
      [&](int u, const Vector<T>& of) {
        if (tile.has(u)) store_part(y + tile.at(u), of, aligned);
      });
  if (const std::int64_t i = tile.loose(); i >= 0) {
    float value = adain_apply(to_float(x[i]), map);
    if (residual) value += to_float(residual[i]);
    y[i] = from_float<T>(p.style.relu ? rectified(value) : value);
  }
}

// The moments of runs: planes (NCHW), or samples in either layout.
template <class T, Scope kScope>
struct RunMoments {
  static constexpr int kBlocks = 4;  // on a processor
  Forward p;
  Cut cut;

  __device__ const T* run(unsigned group) const { return static_cast<const T*>(p.x) + group * cut.count; }

  __device__ void first(unsigned group, unsigned k) const {
    const RunTile<T> tile(run(group), cut, k);
    Vector<T> v[kBatch];
    tile.load(run(group), true, v);
    const Moments all = moments_of(run(group), tile, v, to_float(run(group)[0]));
    if (threadIdx.x == 0) p.partials[std::int64_t{group} * cut.tiles + k] = {all.mean, all.m2};
  }

  __device__ void finish(unsigned group) const {
    __shared__ Moments scratch[kThreads / 32];
    Moments own[1] = {};
    for (unsigned k = threadIdx.x; k < cut.tiles; k += kThreads) {
      const Partial part = fresh(p.partials + std::int64_t{group} * cut.tiles + k);
      own[0] = combine(own[0], {RunTile<T>(run(group), cut, k).count(), part.mean, part.m2});
    }
    const Moments all = block_fold(own, 1, scratch);
    if (threadIdx.x == 0) keep<kScope>(p, group, all);
  }
};

// NCHW. A group is a plane, or a sample of C planes whose tiles are `planes`.
template <class T, Scope kScope>
struct RunForward : RunMoments<T, kScope> {
  Cut planes;

  template <class Wait>
  __device__ void second(unsigned group, unsigned k, Wait wait) const {
    const Forward& p = this->p;
    const unsigned c = kScope == Scope::plane ? 0 : k / planes.tiles;
    const std::int64_t plane = kScope == Scope::plane ? group : group * p.c + c;
    const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
    const RunTile<T> tile(x, planes, kScope == Scope::plane ? k : k % planes.tiles);
    Vector<T> v[kBatch];
    tile.load(x, true, v);
    wait();
    const float first = to_float(this->run(group)[0]);
    const AdainMap map = map_of<kScope>(first, fresh(p.found + group), p.style, kScope == Scope::plane ? group : c);
    apply(p, x, plane, tile, v, map);
  }
};

// ---- columns

// Of the `rows` rows that this thread holds: a set for each of its channels, of differences to `first`.
template <class T, bool kAll, int kCount>
__device__ void spreads_of(int rows, const Vector<T> (&v)[kCount], const float (&first)[Vector<T>::kSize],
                           Spread (&sets)[Vector<T>::kSize]) {
  const float share = quick_quotient(1.0f, kAll ? kCount : rows > 1 ? rows : 1);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    float d[kCount], sum = 0.0f, m2 = 0.0f;
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      d[u] = to_float(element(v[u], i)) - first[i];
      sum += kAll || u < rows ? d[u] : 0.0f;
    }
    const float mean = sum * share;
#pragma unroll
    for (int u = 0; u < kCount; ++u) m2 += kAll || u < rows ? (d[u] - mean) * (d[u] - mean) : 0.0f;
    sets[i] = {mean, m2};
  }
}

// NHWC. A group is a slab of a sample's channels (scope plane), or a sample (scope sample), whose moments are a run's.
template <class T, bool kWhole>
struct ColumnMoments {
  static constexpr int kBlocks = 3, kSize = Vector<T>::kSize;
  Forward p;
  Columns columns;

  __device__ unsigned width() const { return columns.lanes * kSize; }  // channels of a slab

  __device__ void first(unsigned group, unsigned k) const {
    __shared__ Moments scratch[kThreads / 32 * 4 * kSize];
    const T* x = static_cast<const T*>(p.x);
    const unsigned sample = group / columns.slabs, slab = group % columns.slabs;
    const Column<T> column(columns, sample, slab, k);
    const bool aligned = kWhole || rows_aligned(x, columns.c);
    Vector<T> v[kBatch];
    column.template load<kWhole>(x, aligned, v);
    const T* top = x + sample * columns.rows * columns.c + column.channel;
    const Vector<T> origin = kWhole ? load_vector(top) : load_part(top, aligned, column.count);
    float first[kSize];
    unpack(origin, first);
    Spread sets[kSize];
    const int rows = column.rows();
    if (rows == kBatch) {
      spreads_of<T, true>(rows, v, first, sets);
    } else {
      spreads_of<T, false>(rows, v, first, sets);
    }
    const Moments all = block_moments(static_cast<float>(rows), sets, static_cast<int>(columns.lanes), scratch);
    if (threadIdx.x < width()) {
      p.partials[(std::int64_t{group} * columns.tiles + k) * width() + threadIdx.x] = {all.mean, all.m2};
    }
  }

  __device__ void finish(unsigned group) const {
    __shared__ Moments scratch[kThreads / 32 * 4 * kSize];
    Moments own[1] = {};
    for (unsigned k = threadIdx.x / width(); k < columns.tiles; k += kThreads / width()) {
      const Partial part =
          fresh(p.partials + (std::int64_t{group} * columns.tiles + k) * width() + threadIdx.x % width());
      own[0] = combine(own[0], {rows_in(columns, k), part.mean, part.m2});
    }
    const Moments all = block_fold(own, static_cast<int>(width()), scratch);
    const std::int64_t channel = std::int64_t{group % columns.slabs} * width() + threadIdx.x;
    if (threadIdx.x < width() && channel < columns.c) {
      keep<Scope::plane>(p, group / columns.slabs * columns.c + channel, all);
    }
  }
};

template <class T, Scope kScope, bool kWhole>
using MomentsOfColumns = std::conditional_t<kScope == Scope::plane, ColumnMoments<T, kWhole>, RunMoments<T, kScope>>;

template <class T, Scope kScope, bool kWhole>
struct ColumnForward : MomentsOfColumns<T, kScope, kWhole> {
  static constexpr int kBlocks = 3, kSize = Vector<T>::kSize;
  Columns slabs;

  template <class Wait>
  __device__ void second(unsigned group, unsigned k, Wait wait) const {
    __shared__ AdainMap shared_maps[4 * kSize];
    const Forward& p = this->p;
    const T* x = static_cast<const T*>(p.x);
    const T* residual = static_cast<const T*>(p.residual);
    const unsigned sample = kScope == Scope::plane ? group / slabs.slabs : group;
    const unsigned slab = kScope == Scope::plane ? group % slabs.slabs : k % slabs.slabs;
    const Column<T> column(slabs, sample, slab, kScope == Scope::plane ? k : k / slabs.slabs);
    Vector<T> v[kBatch];
    column.template load<kWhole>(x, kWhole || rows_aligned(x, slabs.c), v);
    wait();
    const unsigned width = slabs.lanes * kSize;
    const std::int64_t c = std::int64_t{slab} * width + threadIdx.x;
    if (threadIdx.x < width && c < slabs.c) {
      const T* start = x + sample * slabs.rows * slabs.c;
      const float first = to_float(start[kScope == Scope::plane ? c : 0]);
      const std::int64_t plane = sample * slabs.c + c;
      shared_maps[threadIdx.x] =
          kScope == Scope::plane ? map_of<kScope>(first, fresh(p.found + plane), p.style, plane)
                                 : map_of<kScope>(first, fresh(p.found + sample), p.style, c);
    }
    __syncthreads();
    AdainMap maps[kSize];
#pragma unroll
    for (int i = 0; i < kSize; ++i) maps[i] = shared_maps[threadIdx.x % slabs.lanes * kSize + i];
    T* y = static_cast<T*>(p.y);
    const bool aligned = kWhole || rows_aligned(y, slabs.c);
    const bool residual_aligned = kWhole || rows_aligned(residual, slabs.c);
    map_all(
        v, p.style.relu, residual != nullptr, [&](int i) { return maps[i]; },
        [&](int u) { return column.template load_one<kWhole>(residual, u, residual_aligned); },
        [&](int u, const Vector<T>& of) {
          if (column.has(u)) column.template store<kWhole>(y, u, of, aligned);
        });
  }
};

}  // namespace ldf
