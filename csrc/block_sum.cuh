// Sum over all threads of a block.
#pragma once

namespace ldf {

// Every thread gives `value` and gets the sum; blockDim.x is a multiple of 32, all threads take part. `scratch` is
// shared memory of at least 32 elements, free again when this returns.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  T sum = T(0);
  for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += scratch[i];
  __syncthreads();
  return sum;
}

}  // namespace ldf
