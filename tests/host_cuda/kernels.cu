// Small kernels that test the emulation itself: right ones must run, wrong ones must be found.
#include <cstdint>

#include "block_sum.cuh"
#include "launch.cuh"

namespace {

__global__ void sums(const float* x, int count, float* out) {
  __shared__ float scratch[32];
  float mine = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) mine += x[i];
  const float sum = ldf::block_sum(mine, scratch);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Every thread passes its value on to the next one, through dynamic shared memory of the type asked for.
template <class T, bool kBarrier>
__global__ void rotate(T* values) {
  extern __shared__ __align__(16) unsigned char bytes[];
  T* shared = reinterpret_cast<T*>(bytes);
  shared[threadIdx.x] = values[threadIdx.x];
  if (kBarrier) __syncthreads();
  values[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

// The same within a warp; a shuffle is no fence for memory, __syncwarp is.
template <bool kFence>
__global__ void rotate_in_warps(int* values) {
  __shared__ int shared[64];
  shared[threadIdx.x] = values[threadIdx.x];
  if (kFence) __syncwarp();
  else __shfl_sync(0xffffffffu, 0, 0);
  values[threadIdx.x] = shared[threadIdx.x / 32 * 32 + (threadIdx.x + 1) % 32];
}

__global__ void histogram(const unsigned char* x, int count, unsigned* bins) {
  __shared__ unsigned table[256];
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) table[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += static_cast<int>(blockDim.x)) atomicAdd(&table[x[i]], 1u);
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = table[i];
}

__global__ void diverge(int* out) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_places(int* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void unwritten(float* out) {
  __shared__ float shared[64];
  if (threadIdx.x > 0) shared[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = shared[63 - threadIdx.x];
}

__global__ void past_shared(int* out) {
  extern __shared__ int words[];
  words[threadIdx.x + 1] = 1;
  out[threadIdx.x] = 1;
}

__global__ void past_array(int* out, int beyond) {
  __shared__ int words[8];
  words[threadIdx.x + beyond] = 1;
  out[threadIdx.x] = words[threadIdx.x + beyond];
}

__global__ void misaligned(const float* x, float4* out) { *out = *reinterpret_cast<const float4*>(x + 1); }

__global__ void store(float* out, int index) { out[index] = 1.0f; }

// What lanes see of each other: shuffles of every kind, votes, a butterfly over half a warp.
__global__ void lanes(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int* row = out + 8 * threadIdx.x;
  row[0] = __shfl_sync(~0u, lane, 5);
  row[1] = __shfl_up_sync(~0u, lane, 3);
  row[2] = __shfl_down_sync(~0u, lane, 3);
  row[3] = __shfl_xor_sync(~0u, lane, 8);
  row[4] = static_cast<int>(__ballot_sync(~0u, lane % 3 == 0));
  row[5] = __shfl_down_sync(~0u, lane, 3, 8);
  row[6] = lane < 16 ? __shfl_xor_sync(0x0000ffffu, lane, 15) : -1;
  row[7] = __syncthreads_count(lane < 4);
}

}  // namespace

extern "C" {

int t_sums(const float* x, int count, float* out, int blocks, int threads) {
  return ldf::launch("sums", sums, blocks, threads, 0, nullptr, x, count, out).code;
}
int t_rotate(double* values, int threads, int barrier) {
  const std::size_t bytes = sizeof(double) * static_cast<std::size_t>(threads);
  return barrier ? ldf::launch("rotate", rotate<double, true>, 1, threads, bytes, nullptr, values).code
                 : ldf::launch("rotate", rotate<double, false>, 1, threads, bytes, nullptr, values).code;
}
int t_rotate_in_warps(int* values, int fence) {
  return fence ? ldf::launch("rotate", rotate_in_warps<true>, 1, 64, 0, nullptr, values).code
               : ldf::launch("rotate", rotate_in_warps<false>, 1, 64, 0, nullptr, values).code;
}
int t_histogram(const unsigned char* x, int count, unsigned* bins) {
  return ldf::launch("histogram", histogram, 1, 96, 0, nullptr, x, count, bins).code;
}
int t_diverge(int* out) { return ldf::launch("diverge", diverge, 1, 64, 0, nullptr, out).code; }
int t_two_places(int* out) { return ldf::launch("two_places", two_places, 1, 64, 0, nullptr, out).code; }
int t_unwritten(float* out) { return ldf::launch("unwritten", unwritten, 1, 64, 0, nullptr, out).code; }
int t_past_shared(int* out) { return ldf::launch("past_shared", past_shared, 1, 32, 128, nullptr, out).code; }
int t_past_array(int* out, int beyond) {
  return ldf::launch("past_array", past_array, 1, 8, 0, nullptr, out, beyond).code;
}
int t_misaligned(const float* x, float4* out) {
  return ldf::launch("misaligned", misaligned, 1, 1, 0, nullptr, x, out).code;
}
int t_store(int index) {
  float* out = nullptr;
  if (cudaMalloc(&out, 10 * sizeof(float)) != cudaSuccess) return -1;
  const int code = ldf::launch("store", store, 1, 1, 0, nullptr, out, index).code;
  if (index < 10) out[index] = 0.0f;
  cudaFree(out);
  return code;
}
int t_lanes(int* out) { return ldf::launch("lanes", lanes, 1, 64, 0, nullptr, out).code; }
int t_shared_bytes(float* out, long bytes) {
  return ldf::launch("store", store, 1, 1, static_cast<std::size_t>(bytes), nullptr, out, 0).code;
}
int t_empty_grid(float* out) { return ldf::launch("store", store, 0, 1, 0, nullptr, out, 0).code; }
int t_block_of(float* out, int threads) { return ldf::launch("store", store, 1, threads, 0, nullptr, out, 0).code; }
}
