// Gradients of the norms, in two steps as forward: sums of g and g * xhat of every tile; then the gradient to x. Shared
// by AdaIN and the decoder's norm.
#pragma once

#include "norm_forward.cuh"

namespace ldf {

constexpr int kHalfBatch = kBatch / 2;  // vectors of x, and as many of grad_y

// Of g and of g * xhat, over a tile, a plane, or, weighted with gamma, a sample.
struct alignas(8) Sums {
  float g, gx;
};
__device__ inline Sums combine(const Sums& a, const Sums& b) { return {a.g + b.g, a.gx + b.gx}; }
__device__ inline Sums exchange(const Sums& value, int offset) {
  return {exchange(value.g, offset), exchange(value.gx, offset)};
}

struct Backward {
  const void* grad_y;
  const void* x;
  void* grad_x;
  std::int64_t c, pixels;
  Style style;
  const float* offset;     // as forward kept it: [N, C], or [N] (scope sample)
  const float* deviation;  // likewise
  float* grad_weight;      // or null; scope plane only
  float* grad_bias;        // or null; scope plane only
  Sums* partials;
  Sums* found;             // of planes, or of samples
};

__device__ inline Found kept(const Backward& p, std::int64_t at) { return {p.offset[at], p.deviation[at]}; }

// Keeps the sums of a plane.
__device__ inline void keep(const Backward& p, std::int64_t plane, const Sums& all) {
  p.found[plane] = all;
  if (p.grad_weight) p.grad_weight[plane] = all.gx;
  if (p.grad_bias) p.grad_bias[plane] = all.g;
}

template <Scope kScope>
__device__ GradientMap gradient_map(const Backward& p, float first, const Found& found, std::int64_t at,
                                    const Sums& all) {
  const AdainMap map = map_of<kScope>(first, found, p.style, at);
  const float rstd = rstd_of<kScope>(found, p.style.eps), pixels = static_cast<float>(p.pixels);
  return kScope == Scope::plane
             ? plane_gradient(map, found.offset, rstd, all.g, all.gx, pixels)
             : sample_gradient(map, found.offset, found.deviation, rstd, all.g, all.gx, static_cast<float>(p.c * p.pixels));
}

__device__ inline void add(Sums& sums, float x, float g, const AdainMap& map, float offset, bool relu) {
  if (relu) g = opened(g, x, map);
  sums.g += g;
  sums.gx += g * (x - map.origin - offset);  // the sum's owner multiplies with rstd
}

__device__ inline float gradient_at(float x, float g, const GradientMap& m, bool relu) {
  return gradient(relu ? opened(g, x, m.map) : g, x, m);
}

template <class T, class MapAt>
__device__ Vector<T> gradient_at(const Vector<T>& x, const Vector<T>& g, MapAt map_at, bool relu) {
  float values[Vector<T>::kSize];
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    values[i] = gradient_at(to_float(element(x, i)), to_float(element(g, i)), map_at(i), relu);
  }
  return pack(values, T{});
}

// ---- runs

// The loose elements' gradients come to be with their tile.
template <class T>
struct RunPair {
  const T* x;
  const T* g;
  RunTile<T> tile;
  Vector<T> vx[kHalfBatch], vg[kHalfBatch];

  __device__ RunPair(const T* x, const T* g, const Cut& cut, unsigned k, int threads = kThreads)
      : x(x), g(g), tile(x, cut, k, threads) {
    tile.load(x, true, vx);
    tile.load(g, is_aligned(g + tile.begin), vg);
  }
};

// Sums of a tile; thread 0 gets them.
template <class T>
__device__ Sums sums_of(const RunPair<T>& pair, const AdainMap& map, const Found& found, float rstd, bool relu) {
  __shared__ Sums scratch[kThreads / 32];
  Sums own[1] = {};
#pragma unroll
  for (int u = 0; u < kHalfBatch; ++u) {
    if (!pair.tile.has(u)) continue;
#pragma unroll
    for (int i = 0; i < Vector<T>::kSize; ++i) {
      add(own[0], to_float(element(pair.vx[u], i)), to_float(element(pair.vg[u], i)), map, found.offset, relu);
    }
  }
  if (const std::int64_t i = pair.tile.loose(); i >= 0) {
    add(own[0], to_float(pair.x[i]), to_float(pair.g[i]), map, found.offset, relu);
  }
  const Sums all = block_fold(own, 1, scratch);
  return {all.g, all.gx * rstd};
}

template <class T>
__device__ void apply(const RunPair<T>& pair, T* to, const GradientMap& map, bool relu) {
  const bool aligned = is_aligned(to + pair.tile.begin);
#pragma unroll
  for (int u = 0; u < kHalfBatch; ++u) {
    if (!pair.tile.has(u)) continue;
    store_part(to + pair.tile.at(u), gradient_at(pair.vx[u], pair.vg[u], [&](int) { return map; }, relu), aligned);
  }
  if (const std::int64_t i = pair.tile.loose(); i >= 0) {
    to[i] = from_float<T>(gradient_at(to_float(pair.x[i]), to_float(pair.g[i]), map, relu));
  }
}

// NCHW. A group is a plane, or a sample of C planes; tiles are the planes'. Partial results: [N, C, tiles].
template <class T, Scope kScope>
struct RunBackward {
  static constexpr int kBlocks = 4;
  Backward p;
  Cut cut;

  struct Place {
    std::int64_t plane, kept, style;  // where the plane's statistics and its weight and bias are
    unsigned tile;
  };
  __device__ Place place_of(unsigned group, unsigned k) const {
    if (kScope == Scope::plane) return {group, group, group, k};
    const unsigned c = k / cut.tiles;
    return {group * p.c + c, group, c, k % cut.tiles};
  }
  __device__ RunPair<T> pair_of(const Place& place) const {
    return {static_cast<const T*>(p.x) + place.plane * p.pixels, static_cast<const T*>(p.grad_y) + place.plane * p.pixels,
            cut, place.tile};
  }
  __device__ float origin(unsigned group) const {
    return to_float(static_cast<const T*>(p.x)[group * (kScope == Scope::plane ? p.pixels : p.c * p.pixels)]);
  }

  __device__ void first(unsigned group, unsigned k) const {
    const Place place = place_of(group, k);
    const RunPair<T> pair = pair_of(place);
    const Found found = kept(p, place.kept);
    const AdainMap map = map_of<kScope>(origin(group), found, p.style, place.style);
    const Sums all = sums_of(pair, map, found, rstd_of<kScope>(found, p.style.eps), p.style.relu);
    if (threadIdx.x == 0) p.partials[place.plane * cut.tiles + place.tile] = all;
  }

  __device__ void finish(unsigned group) const {
    __shared__ Sums scratch[kThreads / 32];
    const unsigned tiles = kScope == Scope::plane ? cut.tiles : static_cast<unsigned>(p.c) * cut.tiles;
    Sums own[1] = {};
    for (unsigned k = threadIdx.x; k < tiles; k += kThreads) {
      const Sums part = fresh(p.partials + std::int64_t{group} * tiles + k);
      const float gamma = kScope == Scope::plane ? 1.0f : p.style.weight[k / cut.tiles];
      own[0] = combine(own[0], {gamma * part.g, gamma * part.gx});
    }
    const Sums all = block_fold(own, 1, scratch);
    if (threadIdx.x == 0) keep(p, group, all);
  }

  template <class Wait>
  __device__ void second(unsigned group, unsigned k, Wait wait) const {
    const Place place = place_of(group, k);
    const RunPair<T> pair = pair_of(place);
    const Found found = kept(p, place.kept);
    wait();
    const GradientMap map = gradient_map<kScope>(p, origin(group), found, place.style, fresh(p.found + group));
    apply(pair, static_cast<T*>(p.grad_x) + place.plane * p.pixels, map, p.style.relu);
  }
};

// ---- columns

// NHWC. A group is a slab of a sample's channels, or a sample with all its slabs. Partial results: [N, slabs, tiles,
// channels of a slab].
template <class T, Scope kScope, bool kWhole>
struct ColumnBackward {
  static constexpr int kBlocks = 2, kSize = Vector<T>::kSize;
  Backward p;
  Columns columns;

  __device__ unsigned width() const { return columns.lanes * kSize; }

  struct Place {
    unsigned sample, slab, tile;
  };
  __device__ Place place_of(unsigned group, unsigned k) const {
    if (kScope == Scope::plane) return {group / columns.slabs, group % columns.slabs, k};
    return {group, k / columns.tiles, k % columns.tiles};
  }

  struct Pair {
    const T* x;
    Column<T> column;
    Vector<T> vx[kHalfBatch], vg[kHalfBatch];

    __device__ Pair(const Backward& p, const Columns& c, const Place& place)
        : x(static_cast<const T*>(p.x)), column(c, place.sample, place.slab, place.tile) {
      const T* g = static_cast<const T*>(p.grad_y);
      column.template load<kWhole>(x, kWhole || rows_aligned(x, c.c), vx);
      column.template load<kWhole>(g, kWhole || rows_aligned(g, c.c), vg);
    }
  };

  // The slab's channel that this thread makes the map of, or -1, and its first value.
  __device__ std::int64_t channel_of(const Place& place) const {
    const std::int64_t c = std::int64_t{place.slab} * width() + threadIdx.x;
    return threadIdx.x < width() && c < columns.c ? c : -1;
  }
  __device__ float origin(const Place& place, std::int64_t c) const {
    return to_float(static_cast<const T*>(p.x)[place.sample * columns.rows * columns.c + (kScope == Scope::plane ? c : 0)]);
  }
  __device__ std::int64_t plane(const Place& place, std::int64_t c) const { return place.sample * columns.c + c; }

  __device__ void first(unsigned group, unsigned k) const {
    struct OfChannel {
      AdainMap map;
      float offset;
    };
    __shared__ OfChannel shared_maps[4 * kSize];
    __shared__ Sums scratch[kThreads / 32 * 4 * kSize];
    const Place place = place_of(group, k);
    const Pair pair(p, columns, place);
    if (const std::int64_t c = channel_of(place); c >= 0) {
      const Found found = kept(p, kScope == Scope::plane ? plane(place, c) : place.sample);
      const std::int64_t style = kScope == Scope::plane ? plane(place, c) : c;
      shared_maps[threadIdx.x] = {map_of<kScope>(origin(place, c), found, p.style, style), found.offset};
    }
    __syncthreads();
    Sums own[kSize] = {};
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const OfChannel at = shared_maps[threadIdx.x % columns.lanes * kSize + i];
#pragma unroll
      for (int u = 0; u < kHalfBatch; ++u) {
        if (!pair.column.has(u)) continue;
        add(own[i], to_float(element(pair.vx[u], i)), to_float(element(pair.vg[u], i)), at.map, at.offset, p.style.relu);
      }
    }
    const Sums all = block_fold(own, static_cast<int>(columns.lanes), scratch);
    if (threadIdx.x < width()) {
      const std::int64_t c = channel_of(place);
      const float rstd =
          c < 0 ? 0.0f : rstd_of<kScope>(kept(p, kScope == Scope::plane ? plane(place, c) : place.sample), p.style.eps);
      const std::int64_t tile = (std::int64_t{place.sample} * columns.slabs + place.slab) * columns.tiles + place.tile;
      p.partials[tile * width() + threadIdx.x] = c < 0 ? Sums{} : Sums{all.g, all.gx * rstd};
    }
  }

  __device__ void finish(unsigned group) const {
    __shared__ Sums scratch[kThreads / 32 * 4 * kSize];
    const unsigned tiles = kScope == Scope::plane ? columns.tiles : columns.tiles * columns.slabs;
    Sums own[1] = {};
    for (unsigned k = threadIdx.x / width(); k < tiles; k += kThreads / width()) {
      const Sums part = fresh(p.partials + (std::int64_t{group} * tiles + k) * width() + threadIdx.x % width());
      const std::int64_t c = std::int64_t{k / columns.tiles} * width() + threadIdx.x % width();
      const float gamma = kScope == Scope::plane ? 1.0f : c < columns.c ? p.style.weight[c] : 0.0f;
      own[0] = combine(own[0], {gamma * part.g, gamma * part.gx});
    }
    const Sums all = block_fold(own, kScope == Scope::plane ? static_cast<int>(width()) : 1, scratch);
    if (kScope == Scope::sample) {
      if (threadIdx.x == 0) p.found[group] = all;
    } else if (const Place place = place_of(group, 0); channel_of(place) >= 0) {
      keep(p, plane(place, channel_of(place)), all);
    }
  }

  template <class Wait>
  __device__ void second(unsigned group, unsigned k, Wait wait) const {
    __shared__ GradientMap shared_maps[4 * kSize];
    const Place place = place_of(group, k);
    const Pair pair(p, columns, place);
    wait();
    if (const std::int64_t c = channel_of(place); c >= 0) {
      const std::int64_t at = kScope == Scope::plane ? plane(place, c) : place.sample;
      shared_maps[threadIdx.x] =
          gradient_map<kScope>(p, origin(place, c), kept(p, at), kScope == Scope::plane ? at : c, fresh(p.found + at));
    }
    __syncthreads();
    GradientMap maps[kSize];
#pragma unroll
    for (int i = 0; i < kSize; ++i) maps[i] = shared_maps[threadIdx.x % columns.lanes * kSize + i];
    T* to = static_cast<T*>(p.grad_x);
    const bool aligned = kWhole || rows_aligned(to, columns.c);
#pragma unroll
    for (int u = 0; u < kHalfBatch; ++u) {
      if (!pair.column.has(u)) continue;
      pair.column.template store<kWhole>(
          to, u, gradient_at(pair.vx[u], pair.vg[u], [&](int i) { return maps[i]; }, p.style.relu), aligned);
    }
  }
};

}  // namespace ldf
