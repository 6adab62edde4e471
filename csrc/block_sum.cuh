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

// Combines values[i] of all threads whose index leaves the same rest when divided by `stride`, a power of two up to
// 32, and gives each of them the result. blockDim.x is a multiple of 32 and all threads take part. `scratch` is shared
// memory of (blockDim.x / 32) * stride * kCount elements, free again when this returns. The order is always the same.
template <int kCount, class T>
__device__ void block_fold(T (&values)[kCount], int stride, T* scratch) {
  for (int offset = stride; offset < 32; offset *= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = combine(values[i], exchange(values[i], offset));
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane < stride) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) scratch[(warp * stride + lane) * kCount + i] = values[i];
  }
  __syncthreads();
  const T* own = scratch + (lane % stride) * kCount;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    T total = own[i];
    for (int w = 1; w < warps; ++w) total = combine(total, own[w * stride * kCount + i]);
    values[i] = total;
  }
  __syncthreads();
}

// Every thread gives `value` and gets the sum of all. `scratch` holds 32 elements.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  T values[1] = {value};
  block_fold(values, 1, scratch);
  return values[0];
}

}  // namespace ldf
