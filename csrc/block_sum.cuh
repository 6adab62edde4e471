// What the threads of a block hold together: sums, and moments of sets.
#pragma once

#include "moments.h"

namespace ldf {

// How two values become one, and how the lanes of a warp exchange them.
__device__ inline float combine(float a, float b) { return a + b; }
__device__ inline double combine(double a, double b) { return a + b; }
__device__ inline float exchange(float value, int offset) { return __shfl_xor_sync(0xffffffffu, value, offset); }
__device__ inline double exchange(double value, int offset) { return __shfl_xor_sync(0xffffffffu, value, offset); }
__device__ inline Moments exchange(const Moments& value, int offset) {
  return {exchange(value.count, offset), exchange(value.mean, offset), exchange(value.m2, offset)};
}

// Within a warp: combine(kept, got) puts together values[i] of all lanes whose index leaves the same rest when divided
// by `stride`, a power of two up to 32 / kCount. Lanes that exchange halve what each goes on with, down to values[0]: of
// index i in the lanes from i * (32 / kCount) on. begin(offset) is called before the lanes that far apart exchange.
template <int kCount, class T, class Begin, class Combine>
__device__ void warp_fold(T (&values)[kCount], int stride, Begin begin, Combine combine) {
#pragma unroll
  for (int offset = 16, count = kCount; offset > 0; offset /= 2) {
    if (offset < stride) break;
    begin(offset);
    const int half = count / 2;
    const bool upper = half > 0 && threadIdx.x & offset;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T kept = upper ? values[i + half] : values[i], given = upper ? values[i] : values[i + half];
      values[i] = combine(kept, exchange(given, offset));
    }
    if (half == 0) values[0] = combine(values[0], exchange(values[0], offset));
    count = half > 0 ? half : 1;
  }
}

// Between warps, after warp_fold: thread r * kCount + i gets what all warps have of values[i] of rest r, threads from
// stride * kCount on nothing. blockDim.x is a multiple of 32 and all threads take part. `scratch`: shared memory of
// (blockDim.x / 32) * stride * kCount elements, free again when this returns. The order is always the same.
template <int kCount, class T>
__device__ T fold_warps(const T& value, int stride, T* scratch) {
  constexpr int kApart = 32 / kCount;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, width = stride * kCount;
  if (lane % kApart < stride) scratch[warp * width + lane % kApart * kCount + lane / kApart] = value;
  __syncthreads();
  T total{};
  if (thread < width) {
    total = scratch[thread];
    for (int w = 1; w < static_cast<int>(blockDim.x) / 32; ++w) total = combine(total, scratch[w * width + thread]);
  }
  __syncthreads();
  return total;
}

template <int kCount, class T>
__device__ T block_fold(T (&values)[kCount], int stride, T* scratch) {
  warp_fold(values, stride, [](int) {}, [](const T& a, const T& b) { return combine(a, b); });
  return fold_warps<kCount>(values[0], stride, scratch);
}

// Moments without their count.
struct Spread {
  float mean, m2;
};
__device__ inline Spread exchange(const Spread& value, int offset) {
  return {exchange(value.mean, offset), exchange(value.m2, offset)};
}

// block_fold of sets which in each thread have one count: what a division is needed for is needed once.
template <int kCount>
__device__ Moments block_moments(float count, Spread (&sets)[kCount], int stride, Moments* scratch) {
  float share = 0.0f, weight = 0.0f;
  warp_fold(
      sets, stride,
      [&](int offset) {
        const float other = exchange(count, offset), total = count + other;
        share = quick_quotient(other, total > 1.0f ? total : 1.0f);
        weight = count * share;
        count = total;
      },
      [&](const Spread& a, const Spread& b) {
        const float delta = b.mean - a.mean;
        return Spread{a.mean + delta * share, a.m2 + b.m2 + delta * delta * weight};
      });
  return fold_warps<kCount>(Moments{count, sets[0].mean, sets[0].m2}, stride, scratch);
}

// Every thread gives `value` and gets the sum of all. `scratch` holds 32 elements.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  T values[1] = {value};
  const T sum = block_fold(values, 1, scratch);
  if (threadIdx.x == 0) scratch[0] = sum;
  __syncthreads();
  const T all = scratch[0];
  __syncthreads();
  return all;
}

}  // namespace ldf
