// Second half of a norm that is split over blocks: every block finds the statistics of its plane or sample from the
// partial results, and applies the map. Shared by AdaIN (scope: plane) and the decoder's norm (scope: sample).
#pragma once

#include "adain_math.h"
#include "norm_moments.cuh"

namespace ldf {

enum class Scope { plane, sample };

// What the map of (n, c) is made of. Scope plane: weight, bias, offset, deviation are [N, C] and the last one is rstd;
// scope sample: weight and bias are [C], offset and deviation [N], and the last one is the unbiased std.
struct Style {
  const float* weight;  // or null: 1
  const float* bias;    // or null: 0
  float eps;
  bool relu;
};

template <Scope kScope>
__device__ AdainMap map_of(float first, float mean_low, float rstd, const Style& style, std::int64_t n, std::int64_t c,
                           std::int64_t channels) {
  const std::int64_t at = kScope == Scope::plane ? n * channels + c : c;
  const float weight = style.weight ? style.weight[at] : 1.0f;
  return {first, mean_low, weight * rstd, style.bias ? style.bias[at] : 0.0f};
}

struct Forward {
  const void* x;
  const void* residual;  // or null
  void* y;
  std::int64_t n, c, pixels;
  Style style;
  float* offset;     // or null
  float* deviation;  // or null
  const Partial* partials;
  Cut partial_cut;     // how the runs of the partial results were cut: samples (scope sample) or planes (NCHW)
};

// The map from moments; one thread of all is the `writer` who also keeps the statistics.
template <Scope kScope>
__device__ AdainMap finish(const Forward& p, float first, const Moments& all, std::int64_t n, std::int64_t c,
                           bool writer) {
  const float deviation = kScope == Scope::plane ? plane_rstd(all, p.style.eps) : sample_std(all);
  const float rstd = kScope == Scope::plane ? deviation : sample_rstd(deviation, p.style.eps);
  if (writer) {
    const std::int64_t at = kScope == Scope::plane ? n * p.c + c : n;
    if (p.offset) p.offset[at] = all.mean;
    if (p.deviation) p.deviation[at] = deviation;
  }
  return map_of<kScope>(first, all.mean, rstd, p.style, n, c, p.c);
}

__device__ inline float mapped(float x, const AdainMap& map, bool relu) {
  const float y = adain_apply(x, map);
  return relu ? rectified(y) : y;
}

// y of one vector of x; `map_at(i)` is the map of its element i.
template <class T, class MapAt>
__device__ Vector<T> mapped(const Vector<T>& x, const Vector<T>& residual, const Forward& p, MapAt map_at) {
  float values[Vector<T>::kSize];
  unpack(x, values);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) values[i] = mapped(values[i], map_at(i), p.style.relu);
  if (p.residual) {
#pragma unroll
    for (int i = 0; i < Vector<T>::kSize; ++i) values[i] += to_float(element(residual, i));
  }
  return pack(values, T{});
}

// NCHW: blocks take chunks of planes, the last ones first, whose x was read last.
template <class T, Scope kScope>
__global__ void __launch_bounds__(kRunThreads) apply_runs(const Forward p, const Cut cut) {
  __shared__ Moments scratch[kRunThreads / 32];
  const unsigned block = gridDim.x - 1 - blockIdx.x;
  const int k = block % cut.chunks;
  const unsigned number = block / cut.chunks, channels = static_cast<unsigned>(p.c);
  const std::int64_t plane = number;
  // Planes that need no more of their sample than that they are the number-th of all need no division.
  const std::int64_t n = kScope == Scope::plane ? 0 : number / channels, c = plane - n * channels;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const T* residual = p.residual ? static_cast<const T*>(p.residual) + plane * p.pixels : nullptr;
  T* y = static_cast<T*>(p.y) + plane * p.pixels;

  const std::int64_t group = kScope == Scope::plane ? plane : n;
  const std::int64_t count = kScope == Scope::plane ? p.pixels : p.c * p.pixels;
  const T* run = static_cast<const T*>(p.x) + group * count;
  const Moments all = run_total(run, count, p.partial_cut, p.partials + group * p.partial_cut.chunks, scratch);
  const bool writer = threadIdx.x == 0 && k == 0 && (kScope == Scope::plane || c == 0);
  const AdainMap map = finish<kScope>(p, to_float(run[0]), all, n, c, writer);

  const Chunk<T> chunk(run_of(x, p.pixels), k, cut);
  const bool y_aligned = is_aligned(y + chunk.head), residual_aligned = residual && is_aligned(residual + chunk.head);
  for (std::int64_t j = chunk.begin + threadIdx.x; j < chunk.end; j += kBatch * kRunThreads) {
    Vector<T> v[kBatch] = {}, r[kBatch] = {};
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const std::int64_t i = j + u * kRunThreads;
      if (i >= chunk.end) continue;
      v[u] = load_vector(x + chunk.at(i));
      if (residual) r[u] = load_part(residual + chunk.at(i), residual_aligned);
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const std::int64_t i = j + u * kRunThreads;
      if (i >= chunk.end) continue;
      store_part(y + chunk.at(i), mapped(v[u], r[u], p, [&](int) { return map; }), y_aligned);
    }
  }
  if (const std::int64_t i = chunk.loose(); i >= 0) {
    const float value = mapped(to_float(x[i]), map, p.style.relu);
    y[i] = from_float<T>(residual ? value + to_float(residual[i]) : value);
  }
}

// NHWC: blocks take slabs of channels and chunks of rows, the last ones first.
template <class T, Scope kScope>
__global__ void __launch_bounds__(kColumnThreads, 2) apply_columns(const Forward p, Columns columns) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Moments scratch[kColumnThreads / 32 * 2 * kSize];
  __shared__ AdainMap shared_maps[2 * kSize];
  const Column<T> place(columns, gridDim.x - 1 - blockIdx.x);
  const T* x = static_cast<const T*>(p.x);
  const T* residual = static_cast<const T*>(p.residual);
  T* y = static_cast<T*>(p.y);

  const unsigned width = columns.lanes * kSize;
  const std::int64_t c = std::int64_t{place.slab} * width + threadIdx.x;  // of the map that this thread makes
  const std::int64_t sample = place.n * columns.rows * columns.c;
  const Moments all =
      kScope == Scope::plane
          ? column_total(columns, place.n, place.slab, width, p.partials, scratch)
          : run_total(x + sample, columns.rows * columns.c, p.partial_cut,
                      p.partials + std::int64_t{place.n} * p.partial_cut.chunks, scratch);
  if (threadIdx.x < width && c < columns.c) {
    const bool writer = place.chunk == 0 && (kScope == Scope::plane || c == 0);
    const float first = to_float(x[kScope == Scope::plane ? sample + c : sample]);
    shared_maps[threadIdx.x] = finish<kScope>(p, first, all, place.n, c, writer);
  }
  __syncthreads();
  AdainMap maps[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    maps[i] = i < place.count ? shared_maps[threadIdx.x % columns.lanes * kSize + i] : AdainMap{};
  }

  const bool aligned = rows_aligned(x, columns.c), y_aligned = rows_aligned(y, columns.c);
  const bool residual_aligned = rows_aligned(residual, columns.c);
  for (std::int64_t row = place.row; row < place.end; row += kShortBatch * place.step) {
    Vector<T> v[kShortBatch] = {}, r[kShortBatch] = {};
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = row + u * place.step;
      if (i >= place.end) continue;
      v[u] = load_part(x + place.at(columns, i), aligned, place.count);
      if (residual) r[u] = load_part(residual + place.at(columns, i), residual_aligned, place.count);
    }
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = row + u * place.step;
      if (i >= place.end) continue;
      store_part(y + place.at(columns, i), mapped(v[u], r[u], p, [&](int e) { return maps[e]; }), y_aligned,
                 place.count);
    }
  }
}

}  // namespace ldf
