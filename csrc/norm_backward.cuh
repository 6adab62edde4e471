// Gradients of the norms, in two steps as forward: sums of g and g * xhat of every plane, chunk by chunk; then the
// gradient to x, for which every block puts the sums it needs together. Shared by AdaIN and the decoder's norm.
#pragma once

#include "norm_forward.cuh"

namespace ldf {

// Of g and of g * xhat, over a chunk or a plane.
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
  std::int64_t n, c, pixels;
  Style style;
  const float* offset;
  const float* deviation;
  float* grad_weight;  // or null; scope plane only
  float* grad_bias;    // or null; scope plane only
};

template <Scope kScope>
__device__ float saved_rstd(const Backward& p, std::int64_t n, std::int64_t c) {
  return kScope == Scope::plane ? p.deviation[n * p.c + c] : sample_rstd(p.deviation[n], p.style.eps);
}

// The map that forward applied to plane (n, c), to the bit. `first` is x's first value of the plane or sample.
template <Scope kScope>
__device__ AdainMap saved_map(const Backward& p, float first, float rstd, std::int64_t n, std::int64_t c) {
  const float offset = p.offset[kScope == Scope::plane ? n * p.c + c : n];
  return map_of<kScope>(first, offset, rstd, p.style, n, c, p.c);
}

__device__ inline void add(Sums& sums, float x, float g, const AdainMap& map, bool relu) {
  const float d = centred(x, map);
  if (relu) g = opened(g, d, map);
  sums.g += g;
  sums.gx += g * d;  // the sum's owner multiplies with rstd
}

__device__ inline float gradient_at(float x, float g, const GradientMap& m, bool relu) {
  const float d = centred(x, m.map);
  return gradient(relu ? opened(g, d, m.map) : g, d, m);
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

// ---- sums

// NCHW: sums[plane * chunks + chunk].
template <class T, Scope kScope>
__global__ void __launch_bounds__(kRunThreads) gradient_sums_of_runs(const Backward p, const Cut cut, Sums* sums) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Sums scratch[kRunThreads / 32];
  const int k = blockIdx.x % cut.chunks;
  const unsigned number = blockIdx.x / cut.chunks, channels = static_cast<unsigned>(p.c);
  const std::int64_t plane = number, n = kScope == Scope::plane ? 0 : number / channels, c = plane - n * channels;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const T* g = static_cast<const T*>(p.grad_y) + plane * p.pixels;
  const float first = to_float(kScope == Scope::plane ? x[0] : x[-c * p.pixels]);
  const float rstd = saved_rstd<kScope>(p, n, c);
  const AdainMap map = saved_map<kScope>(p, first, rstd, n, c);
  const Chunk<T> chunk(run_of(x, p.pixels), k, cut);
  const bool g_aligned = is_aligned(g + chunk.head), relu = p.style.relu;

  Sums own[1] = {};
  for (std::int64_t j = chunk.begin + threadIdx.x; j < chunk.end; j += kShortBatch * kRunThreads) {
    Vector<T> vx[kShortBatch] = {}, vg[kShortBatch] = {};
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = j + u * kRunThreads;
      if (i >= chunk.end) continue;
      vx[u] = load_vector(x + chunk.at(i));
      vg[u] = load_part(g + chunk.at(i), g_aligned);
    }
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      if (j + u * kRunThreads >= chunk.end) continue;
#pragma unroll
      for (int e = 0; e < kSize; ++e) add(own[0], to_float(element(vx[u], e)), to_float(element(vg[u], e)), map, relu);
    }
  }
  if (const std::int64_t i = chunk.loose(); i >= 0) add(own[0], to_float(x[i]), to_float(g[i]), map, relu);

  block_fold(own, 1, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = {own[0].g, own[0].gx * rstd};
}

// NHWC: sums[(n * chunks + chunk) * C + c].
template <class T, Scope kScope>
__global__ void __launch_bounds__(kColumnThreads) gradient_sums_of_columns(const Backward p, const Columns columns,
                                                                           Sums* sums) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Sums scratch[kColumnThreads / 32 * 2 * kSize];
  const Column<T> place(columns, blockIdx.x);
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_y);
  const bool aligned = rows_aligned(x, columns.c), g_aligned = rows_aligned(g, columns.c), relu = p.style.relu;

  AdainMap maps[kSize];
  const std::int64_t sample = place.n * columns.rows * columns.c;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    maps[i] = {};
    const std::int64_t c = place.channel + i;
    if (i >= place.count) continue;
    const float first = to_float(x[kScope == Scope::plane ? sample + c : sample]);
    maps[i] = saved_map<kScope>(p, first, saved_rstd<kScope>(p, place.n, c), place.n, c);
  }

  Sums own[kSize] = {};
  for (std::int64_t row = place.row; row < place.end; row += kShortBatch * place.step) {
    Vector<T> vx[kShortBatch] = {}, vg[kShortBatch] = {};
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = row + u * place.step;
      if (i >= place.end) continue;
      vx[u] = load_part(x + place.at(columns, i), aligned, place.count);
      vg[u] = load_part(g + place.at(columns, i), g_aligned, place.count);
    }
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      if (row + u * place.step >= place.end) continue;
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
        add(own[e], to_float(element(vx[u], e)), to_float(element(vg[u], e)), maps[e], relu);
      }
    }
  }

  block_fold(own, static_cast<int>(columns.lanes), scratch);
  if (threadIdx.x < columns.lanes) {
    Sums* to = sums + (std::int64_t{place.n} * columns.chunks + place.chunk) * columns.c + place.channel;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (i < place.count) to[i] = {own[i].g, own[i].gx * saved_rstd<kScope>(p, place.n, place.channel + i)};
    }
  }
}

// Sums over a sample, every channel's weighted with its gamma. `channel_of(i)` is the channel of the sample's i-th
// partial result. Every thread of the block gets them; `scratch`: one element a warp.
template <class ChannelOf>
__device__ Sums weighted_total(const Sums* sums, unsigned count, const float* gamma, ChannelOf channel_of,
                               Sums* scratch) {
  Sums own[1] = {};
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const float weight = gamma[channel_of(i)];
    own[0] = combine(own[0], {weight * sums[i].g, weight * sums[i].gx});
  }
  block_fold(own, 1, scratch);
  return own[0];
}

// ---- gradient to x

// Of plane (n, c): from the plane's sums, or from the weighted ones of the sample.
template <Scope kScope>
__device__ GradientMap gradient_map(const Backward& p, float first, const Sums& all, std::int64_t n, std::int64_t c,
                                    bool writer) {
  const float rstd = saved_rstd<kScope>(p, n, c);
  const AdainMap map = saved_map<kScope>(p, first, rstd, n, c);
  if (kScope == Scope::sample) {
    return sample_gradient(map, p.deviation[n], rstd, all.g, all.gx, static_cast<float>(p.c * p.pixels));
  }
  if (writer) {
    if (p.grad_weight) p.grad_weight[n * p.c + c] = all.gx;
    if (p.grad_bias) p.grad_bias[n * p.c + c] = all.g;
  }
  return plane_gradient(map, rstd, all.g, all.gx, static_cast<float>(p.pixels));
}

// NCHW; the last chunks first, whose x and g were read last.
template <class T, Scope kScope>
__global__ void __launch_bounds__(kRunThreads) gradient_of_runs(const Backward p, const Cut cut, const Sums* sums) {
  __shared__ Sums scratch[kRunThreads / 32];
  const unsigned block = gridDim.x - 1 - blockIdx.x;
  const int k = block % cut.chunks;
  const unsigned number = block / cut.chunks, channels = static_cast<unsigned>(p.c);
  const std::int64_t plane = number, n = kScope == Scope::plane ? 0 : number / channels, c = plane - n * channels;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const T* g = static_cast<const T*>(p.grad_y) + plane * p.pixels;
  T* to = static_cast<T*>(p.grad_x) + plane * p.pixels;

  Sums all[1] = {};
  if (kScope == Scope::plane) {
    for (int i = threadIdx.x; i < cut.chunks; i += kRunThreads) all[0] = combine(all[0], sums[plane * cut.chunks + i]);
    block_fold(all, 1, scratch);
  } else {
    const unsigned chunks = static_cast<unsigned>(cut.chunks);
    all[0] = weighted_total(sums + n * p.c * chunks, channels * chunks, p.style.weight,
                            [&](unsigned i) { return i / chunks; }, scratch);
  }
  const float first = to_float(kScope == Scope::plane ? x[0] : x[-c * p.pixels]);
  const GradientMap map = gradient_map<kScope>(p, first, all[0], n, c, threadIdx.x == 0 && k == 0);

  const Chunk<T> chunk(run_of(x, p.pixels), k, cut);
  const bool g_aligned = is_aligned(g + chunk.head), to_aligned = is_aligned(to + chunk.head), relu = p.style.relu;
  for (std::int64_t j = chunk.begin + threadIdx.x; j < chunk.end; j += kShortBatch * kRunThreads) {
    Vector<T> vx[kShortBatch] = {}, vg[kShortBatch] = {};
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = j + u * kRunThreads;
      if (i >= chunk.end) continue;
      vx[u] = load_vector(x + chunk.at(i));
      vg[u] = load_part(g + chunk.at(i), g_aligned);
    }
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = j + u * kRunThreads;
      if (i >= chunk.end) continue;
      store_part(to + chunk.at(i), gradient_at(vx[u], vg[u], [&](int) { return map; }, relu), to_aligned);
    }
  }
  if (const std::int64_t i = chunk.loose(); i >= 0) {
    to[i] = from_float<T>(gradient_at(to_float(x[i]), to_float(g[i]), map, relu));
  }
}

// NHWC; the last chunks first.
template <class T, Scope kScope>
__global__ void __launch_bounds__(kColumnThreads) gradient_of_columns(const Backward p, const Columns columns,
                                                                      const Sums* sums) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Sums scratch[kColumnThreads / 32 * 2 * kSize];
  __shared__ GradientMap shared_maps[2 * kSize];
  const Column<T> place(columns, gridDim.x - 1 - blockIdx.x);
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_y);
  T* to = static_cast<T*>(p.grad_x);

  const unsigned width = columns.lanes * kSize, channels = static_cast<unsigned>(columns.c);
  const std::int64_t c = std::int64_t{place.slab} * width + threadIdx.x % width;
  const std::int64_t sample = place.n * columns.rows * columns.c;
  sums += place.n * columns.c * columns.chunks;
  Sums all[1] = {};
  if (kScope == Scope::plane) {
    for (unsigned k = threadIdx.x / width; k < columns.chunks && c < columns.c; k += columns.threads / width) {
      all[0] = combine(all[0], sums[k * columns.c + c]);
    }
    block_fold(all, static_cast<int>(width), scratch);
  } else {
    all[0] = weighted_total(sums, channels * columns.chunks, p.style.weight,
                            [&](unsigned i) { return i % channels; }, scratch);
  }
  if (threadIdx.x < width && c < columns.c) {
    const float first = to_float(x[kScope == Scope::plane ? sample + c : sample]);
    shared_maps[threadIdx.x] = gradient_map<kScope>(p, first, all[0], place.n, c, place.chunk == 0);
  }
  __syncthreads();
  GradientMap maps[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    maps[i] = i < place.count ? shared_maps[threadIdx.x % columns.lanes * kSize + i] : GradientMap{};
  }

  const bool aligned = rows_aligned(x, columns.c), g_aligned = rows_aligned(g, columns.c);
  const bool to_aligned = rows_aligned(to, columns.c), relu = p.style.relu;
  for (std::int64_t row = place.row; row < place.end; row += kShortBatch * place.step) {
    Vector<T> vx[kShortBatch] = {}, vg[kShortBatch] = {};
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = row + u * place.step;
      if (i >= place.end) continue;
      vx[u] = load_part(x + place.at(columns, i), aligned, place.count);
      vg[u] = load_part(g + place.at(columns, i), g_aligned, place.count);
    }
#pragma unroll
    for (int u = 0; u < kShortBatch; ++u) {
      const std::int64_t i = row + u * place.step;
      if (i >= place.end) continue;
      store_part(to + place.at(columns, i), gradient_at(vx[u], vg[u], [&](int e) { return maps[e]; }, relu), to_aligned,
                 place.count);
    }
  }
}

}  // namespace ldf
