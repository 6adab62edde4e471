// Host CUDA: a test-only emulation of CUDA on the CPU. This header stands in for the toolkit's cuda_runtime.h, so that
// g++ compiles the very .cu sources; host_cuda.cpp runs them. Never part of the package.
//
// Threads of a block are fibres that run until they meet the others (__syncthreads, __syncwarp, a shuffle), one after
// the other in an order that changes, so what a missing barrier leaves open comes out differently. Blocks run one
// after the other, in a changing order too. Shared memory is filled with 0xFF (NaN, -1) before every block. Launches
// finish before they return; a launch that finds a fault returns cudaErrorLaunchFailure and cudaGetErrorString then
// says what: a barrier not all threads reach, a race on shared memory, a misaligned or out-of-bounds access.
//
// Not emulated: clusters, cooperative groups, asynchronous copies, textures, PTX, several devices, warps that run on
// past a barrier of another one. A race between blocks on global memory is not seen.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>

#define LDF_HOST_CUDA 1

// The toolkit's own words, without what only nvcc understands. Shared memory is the thread-local storage of the
// library: one place, of any type, that can be found and poisoned. build.py rewrites `extern __shared__`.
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__

namespace host_cuda {

enum class Wait { block, warp, fence };  // fence: __syncwarp, which also orders memory; shuffles and votes do not
enum class Access { read, write, atomic };

// Meets the other threads of the block, or the lanes `mask` of the warp; returns when all are there. `give` is this
// lane's value, and lane_value(l) what lane l gave, valid until this thread meets the others again.
void meet(Wait what, unsigned mask, std::uint64_t give, const char* file, int line);
std::uint64_t lane_value(unsigned lane);
unsigned lanes_met();      // those that took part
unsigned lanes_alive();    // of this warp, not yet returned
int block_total();         // the sum over the block of what threads gave to the last meeting
unsigned lane();
void* dynamic_shared();
void touch(const void* address, std::size_t bytes, Access access);  // tells the race detector
void copy(void* to, const void* from, std::size_t bytes);           // and does not
cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread);

template <class T>
std::uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move up to 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T unpack(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// What lane `from` gave, if the segment of `width` lanes holds it and it took part; else this lane's own.
template <class T>
T shuffle(unsigned mask, T value, long from, const char* file, int line) {
  meet(Wait::warp, mask, pack(value), file, line);
  const bool there = from >= 0 && from < 32 && (lanes_met() >> from & 1u);
  return there ? unpack<T>(lane_value(static_cast<unsigned>(from))) : value;
}

template <class T, class Change>
T atomic(T* at, Change change) {
  touch(at, sizeof(T), Access::atomic);
  T old;
  copy(&old, at, sizeof(T));
  const T fresh = change(old);
  copy(at, &fresh, sizeof(T));
  return old;
}

}  // namespace host_cuda

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// Where a barrier stands is part of what it means: all threads must be at the same one.
#define HOST_CUDA_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HOST_CUDA_WHERE) { host_cuda::meet(host_cuda::Wait::block, ~0u, 0, file, line); }
inline int __syncthreads_count(int yes, HOST_CUDA_WHERE) {
  host_cuda::meet(host_cuda::Wait::block, ~0u, yes != 0, file, line);
  return host_cuda::block_total();
}
inline int __syncthreads_or(int yes, HOST_CUDA_WHERE) { return __syncthreads_count(yes, file, line) > 0; }
inline int __syncthreads_and(int yes, HOST_CUDA_WHERE) { return __syncthreads_count(!yes, file, line) == 0; }
inline void __syncwarp(unsigned mask = ~0u, HOST_CUDA_WHERE) {
  host_cuda::meet(host_cuda::Wait::fence, mask, 0, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int yes, HOST_CUDA_WHERE) {
  host_cuda::meet(host_cuda::Wait::warp, mask, yes != 0, file, line);
  unsigned ballot = 0;
  for (unsigned l = 0; l < 32; ++l)
    if (host_cuda::lanes_met() >> l & 1u) ballot |= static_cast<unsigned>(host_cuda::lane_value(l)) << l;
  return ballot;
}
inline int __any_sync(unsigned mask, int yes, HOST_CUDA_WHERE) { return __ballot_sync(mask, yes, file, line) != 0; }
inline int __all_sync(unsigned mask, int yes, HOST_CUDA_WHERE) { return __ballot_sync(mask, !yes, file, line) == 0; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value, HOST_CUDA_WHERE) {
  host_cuda::meet(host_cuda::Wait::warp, mask, host_cuda::pack(value), file, line);
  unsigned same = 0;
  for (unsigned l = 0; l < 32; ++l)
    if ((host_cuda::lanes_met() >> l & 1u) && host_cuda::lane_value(l) == host_cuda::pack(value)) same |= 1u << l;
  return same;
}
inline unsigned __activemask() { return host_cuda::lanes_alive(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, HOST_CUDA_WHERE) {
  const int first = static_cast<int>(host_cuda::lane()) & ~(width - 1);
  return host_cuda::shuffle(mask, value, first + (from & (width - 1)), file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, HOST_CUDA_WHERE) {
  const int mine = static_cast<int>(host_cuda::lane()), from = mine ^ bits;
  return host_cuda::shuffle(mask, value, from / width <= mine / width ? from : mine, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, HOST_CUDA_WHERE) {
  const int mine = static_cast<int>(host_cuda::lane()), from = mine + static_cast<int>(by);
  return host_cuda::shuffle(mask, value, from / width == mine / width ? from : mine, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, HOST_CUDA_WHERE) {
  const int mine = static_cast<int>(host_cuda::lane()), from = mine - static_cast<int>(by);
  return host_cuda::shuffle(mask, value, from >= (mine & ~(width - 1)) ? from : mine, file, line);
}

template <class T>
using HostCudaValue = typename std::common_type<T>::type;  // not deduced: the pointer decides the type

template <class T> T atomicAdd(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return T(a + v); }); }
template <class T> T atomicSub(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return T(a - v); }); }
template <class T> T atomicMax(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return a < v ? v : a; }); }
template <class T> T atomicMin(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return v < a ? v : a; }); }
template <class T> T atomicAnd(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return T(a & v); }); }
template <class T> T atomicOr(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return T(a | v); }); }
template <class T> T atomicXor(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T a) { return T(a ^ v); }); }
template <class T> T atomicExch(T* at, HostCudaValue<T> v) { return host_cuda::atomic(at, [&](T) { return v; }); }
template <class T> T atomicCAS(T* at, HostCudaValue<T> was, HostCudaValue<T> v) {
  return host_cuda::atomic(at, [&](T a) { return a == was ? v : a; });
}
inline unsigned atomicInc(unsigned* at, unsigned last) {
  return host_cuda::atomic(at, [&](unsigned a) { return a >= last ? 0u : a + 1; });
}

inline void __threadfence() {}
inline void __nanosleep(unsigned) {}
inline void __threadfence_block() {}
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldlu(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> void __stcg(T* p, T v) { *p = v; }
template <class T> void __stwt(T* p, T v) { *p = v; }

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __saturatef(float x) { return x > 0.0f ? std::min(x, 1.0f) : 0.0f; }  // NaN becomes 0
// Conversions saturate and send NaN to 0, unlike C++.
template <class Int, class Float>
Int host_cuda_convert(Float x) {
  if (!(x == x)) return 0;
  if (x <= static_cast<Float>(std::numeric_limits<Int>::min())) return std::numeric_limits<Int>::min();
  if (x >= static_cast<Float>(std::numeric_limits<Int>::max())) return std::numeric_limits<Int>::max();
  return static_cast<Int>(x);
}
inline int __float2int_rn(float x) { return host_cuda_convert<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return host_cuda_convert<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return host_cuda_convert<int>(std::ceil(x)); }
inline int __float2int_rz(float x) { return host_cuda_convert<int>(std::trunc(x)); }
inline unsigned __float2uint_rn(float x) { return host_cuda_convert<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rd(float x) { return host_cuda_convert<unsigned>(std::floor(x)); }
inline unsigned __float2uint_rz(float x) { return host_cuda_convert<unsigned>(std::trunc(x)); }
inline int __double2int_rn(double x) { return host_cuda_convert<int>(std::nearbyint(x)); }
inline int __double2int_rd(double x) { return host_cuda_convert<int>(std::floor(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline int __float_as_int(float x) { return host_cuda::unpack<int>(host_cuda::pack(x)); }
inline unsigned __float_as_uint(float x) { return host_cuda::unpack<unsigned>(host_cuda::pack(x)); }
inline float __int_as_float(int x) { return host_cuda::unpack<float>(host_cuda::pack(x)); }
inline float __uint_as_float(unsigned x) { return host_cuda::unpack<float>(host_cuda::pack(x)); }
inline long long __double_as_longlong(double x) { return host_cuda::unpack<long long>(host_cuda::pack(x)); }
inline double __longlong_as_double(long long x) { return host_cuda::unpack<double>(host_cuda::pack(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __mul24(int a, int b) { return a * b; }
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<std::int64_t>(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned pick) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> (pick >> 4 * i & 7u) * 8 & 0xffu) << 8 * i;
  return out;
}

// The runtime's C++ templates that csrc uses.
template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  return [&](Params... values) {  // converted once, as the runtime does; every thread gets copies
    return host_cuda::run(*config, reinterpret_cast<const void*>(kernel), [&] { kernel(values...); });
  }(std::forward<Args>(args)...);
}
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return ::cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t bytes, unsigned = 0) {
  return ::cudaMallocHost(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t stream) {
  return ::cudaMallocAsync(reinterpret_cast<void**>(pointer), bytes, stream);
}
template <class T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class T>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, T* kernel) {
  return ::cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}
template <class T>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, T* kernel, int threads, std::size_t shared) {
  return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, reinterpret_cast<const void*>(kernel), threads, shared);
}
