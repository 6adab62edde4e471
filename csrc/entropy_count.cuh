// The histogram of one block in shared memory, and the entropy of its counts.
#pragma once

#include <cstdint>

#include "block_sum.cuh"
#include "entropy_math.h"

namespace ldf {

// Each bin has a counter for every lane of a warp, and these 32 lie in the 32 banks of shared memory: a lane stays in
// its own bank whatever it counts. So threads of a warp never wait for each other, and a constant patch, where all
// count in the same bin, takes as long as noise.
constexpr int kLanes = 32;

struct alignas(16) BlockHistogram {
  std::uint32_t counts[kBins + 1][kLanes];  // one row more, kOutside, takes what is not counted: no branch a pixel
};

// All threads of the block; a barrier must follow before anything is counted.
__device__ inline void clear(BlockHistogram& h) {
  auto* counts = reinterpret_cast<uint4*>(h.counts);
  for (int i = threadIdx.x; i < (kBins + 1) * kLanes / 4; i += blockDim.x) counts[i] = make_uint4(0, 0, 0, 0);
}

// `bin` is 0 to 255, or kOutside.
__device__ inline void count(BlockHistogram& h, int bin) { atomicAdd(&h.counts[bin][threadIdx.x % kLanes], 1u); }

// How often `bin` was counted, a barrier after the last count. Each lane starts in another bank.
__device__ inline std::uint32_t counted(const BlockHistogram& h, int bin) {
  std::uint32_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += h.counts[bin][(i + threadIdx.x) % kLanes];
  return sum;
}

// Entropy in bits. Thread i < 256 brings the count of bin i, all others 0; all threads get the result. `scratch` as
// for block_sum.
__device__ inline double entropy_of_counts(double count, double* scratch) {
  const double total = block_sum(count, scratch);
  const double mine = count > 0.0 ? weighted_bits(count, log2(count), log2(total)) : 0.0;
  const double sum = block_sum(mine, scratch);
  return total > 0.0 ? sum / total : 0.0;
}

}  // namespace ldf
