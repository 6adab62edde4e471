// What every kernel shares: the host/device mark, CPU dispatch, and the CUDA stream's type.
#pragma once

#include <cstdint>

// Inner math is written once, in headers, and marked LDF_HD so that .cpp and .cu compile the same lines.
#ifdef __CUDACC__
#define LDF_HD __host__ __device__
#else
#define LDF_HD
#endif

// Before a loop worth vectorising: GCC compiles the function once per instruction set and the loader picks by
// the CPU at hand, so that one wheel is both portable and fast. Elsewhere the baseline is all there is.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__) && !defined(__CUDACC__)
#if __GNUC__ >= 12
// with AVX-512's instructions for bytes and 16-bit words; older compilers cannot ask the CPU for them here
#define LDF_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define LDF_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define LDF_CLONES
#endif

struct CUstream_st;  // CUDA's own name; declared here so that headers need no CUDA

namespace ldf {

using Stream = CUstream_st*;  // the same type as cudaStream_t

}  // namespace ldf
