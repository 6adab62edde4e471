// First half of a norm that is split over blocks: moments of every chunk, and how a block puts them together again.
// Moments are of differences to the first value of the plane (or sample), a member of it, so that floats keep the
// digits of a spread far below the mean.
#pragma once

#include "block_sum.cuh"
#include "norm_tiles.cuh"

namespace ldf {

// A chunk's moments; its count follows from its place.
struct alignas(8) Partial {
  float mean, m2;
};

// Adds K values in registers to `set`, in two passes of their own.
template <int K>
__device__ void absorb(Moments& set, const float (&values)[K]) {
  float sum = 0.0f, m2 = 0.0f;
#pragma unroll
  for (int i = 0; i < K; ++i) sum += values[i];
  const float mean = sum * (1.0f / K);
#pragma unroll
  for (int i = 0; i < K; ++i) m2 += (values[i] - mean) * (values[i] - mean);
  set = combine(set, {static_cast<float>(K), mean, m2});
}

// Moments of the chunks of runs of `count` elements: partials[run * chunks + chunk].
template <class T>
__global__ void __launch_bounds__(kRunThreads) run_moments(const T* __restrict__ x, std::int64_t count, Cut cut,
                                                           Partial* __restrict__ partials) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Moments scratch[kRunThreads / 32];
  const T* run = x + blockIdx.x / cut.chunks * count;
  const Chunk<T> chunk(run_of(run, count), blockIdx.x % cut.chunks, cut);
  const float first = to_float(run[0]);

  Moments own[1] = {};
  for (std::int64_t j = chunk.begin + threadIdx.x; j < chunk.end; j += kBatch * kRunThreads) {
    Vector<T> v[kBatch] = {};
    float d[kBatch * kSize];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if (j + u * kRunThreads < chunk.end) v[u] = load_vector(run + chunk.at(j + u * kRunThreads));
    }
#pragma unroll
    for (int i = 0; i < kBatch * kSize; ++i) d[i] = to_float(element(v[i / kSize], i % kSize)) - first;
    if (j + (kBatch - 1) * kRunThreads < chunk.end) {
      absorb(own[0], d);
      continue;
    }
#pragma unroll
    for (int u = 0; u < kBatch - 1; ++u) {
      float one[kSize];
#pragma unroll
      for (int i = 0; i < kSize; ++i) one[i] = d[u * kSize + i];
      if (j + u * kRunThreads < chunk.end) absorb(own[0], one);
    }
  }
  if (const std::int64_t i = chunk.loose(); i >= 0) own[0] = combine(own[0], {1.0f, to_float(run[i]) - first, 0.0f});

  block_fold(own, 1, scratch);
  if (threadIdx.x == 0) partials[blockIdx.x] = {own[0].mean, own[0].m2};
}

// Moments of every plane of an NHWC tensor: partials[(n * chunks + chunk) * C + c].
template <class T>
__global__ void __launch_bounds__(kColumnThreads, 2) column_moments(const T* __restrict__ x, Columns columns,
                                                                    Partial* __restrict__ partials) {
  constexpr int kSize = Vector<T>::kSize;
  __shared__ Moments scratch[kColumnThreads / 32 * 2 * kSize];
  const Column<T> place(columns, blockIdx.x);
  const bool aligned = rows_aligned(x, columns.c);

  float first[kSize], count = 0.0f;
  Partial own[kSize] = {};
  const Vector<T> top = load_part(x + place.at(columns, 0), aligned, place.count);
#pragma unroll
  for (int i = 0; i < kSize; ++i) first[i] = to_float(element(top, i));

  for (std::int64_t row = place.row; row < place.end; row += kBatch * place.step) {
    Vector<T> v[kBatch] = {};
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const std::int64_t r = row + u * place.step;
      if (r < place.end) v[u] = load_part(x + place.at(columns, r), aligned, place.count);
    }
    // All columns of a thread have one count, so one division serves them all.
    if (row + (kBatch - 1) * place.step < place.end) {
      const float before = count;
      count += kBatch;
      const float share = kBatch / count;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        float d[kBatch], mean = 0.0f, m2 = 0.0f;
#pragma unroll
        for (int u = 0; u < kBatch; ++u) mean += d[u] = to_float(element(v[u], i)) - first[i];
        mean *= 1.0f / kBatch;
#pragma unroll
        for (int u = 0; u < kBatch; ++u) m2 += (d[u] - mean) * (d[u] - mean);
        const float delta = mean - own[i].mean;
        own[i].mean += delta * share;
        own[i].m2 += m2 + delta * delta * (before * share);
      }
      continue;
    }
#pragma unroll
    for (int u = 0; u < kBatch - 1; ++u) {
      if (row + u * place.step >= place.end) continue;
      const float before = count;
      count += 1.0f;
      const float share = 1.0f / count;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const float delta = to_float(element(v[u], i)) - first[i] - own[i].mean;
        own[i].mean += delta * share;
        own[i].m2 += delta * delta * (before * share);
      }
    }
  }

  Moments sets[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) sets[i] = {count, own[i].mean, own[i].m2};
  block_fold(sets, static_cast<int>(columns.lanes), scratch);
  if (threadIdx.x < columns.lanes) {
    Partial* to = partials + (std::int64_t{place.n} * columns.chunks + place.chunk) * columns.c + place.channel;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (i < place.count) to[i] = {sets[i].mean, sets[i].m2};
    }
  }
}

// Moments of a whole run from its chunks'; every thread of the block gets them. `scratch`: one element a warp.
template <class T>
__device__ Moments run_total(const T* run, std::int64_t count, const Cut& cut, const Partial* partials,
                             Moments* scratch) {
  const Run whole = run_of(run, count);
  Moments own[1] = {};
  for (int k = threadIdx.x; k < cut.chunks; k += blockDim.x) {
    const auto size = static_cast<float>(Chunk<T>(whole, k, cut).count());
    own[0] = combine(own[0], {size, partials[k].mean, partials[k].m2});
  }
  block_fold(own, 1, scratch);
  return own[0];
}

// Moments of the planes of slab `slab` of sample n of an NHWC tensor: thread t gets those of the slab's channel
// t % width, where width = lanes * vector size, a power of two up to 16. `scratch`: width elements a warp.
__device__ inline Moments column_total(const Columns& columns, std::int64_t n, unsigned slab, unsigned width,
                                       const Partial* partials, Moments* scratch) {
  const std::int64_t channel = std::int64_t{slab} * width + threadIdx.x % width;
  Moments own[1] = {};
  if (channel < columns.c) {
    for (unsigned k = threadIdx.x / width; k < columns.chunks; k += blockDim.x / width) {
      const Partial p = partials[(n * columns.chunks + k) * columns.c + channel];
      own[0] = combine(own[0], {rows_in(columns, k), p.mean, p.m2});
    }
  }
  block_fold(own, static_cast<int>(width), scratch);
  return own[0];
}

}  // namespace ldf
