#include "frame_stats.h"

#include "frame_check.h"
#include "frame_stats_math.h"
#include "launch.cuh"

namespace ldf {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kCountThreads = 256;
constexpr int kPixels = 8;  // a thread's, in one 16-byte read where rows allow it
constexpr unsigned kCountBlocks = 1024;

constexpr int kScanThreads = 1024;
constexpr int kBinsEach = kCounts16 / kScanThreads;

// Counts a value for every lane; -1 for none. Lanes of a common value count together: where a frame is flat, or a
// camera's counts are few, all of them would wait for one address. Two such values a warp; what is left counts alone.
__device__ inline void count(std::uint32_t* counts, std::int32_t value) {
  for (int round = 0; round < 2; ++round) {
    const unsigned left = __ballot_sync(kAllLanes, value >= 0);
    if (left == 0) return;  // the same for all lanes
    const int leader = __ffs(static_cast<int>(left)) - 1;
    const std::int32_t common = __shfl_sync(kAllLanes, value, leader);
    const unsigned same = __ballot_sync(kAllLanes, value == common);
    if (static_cast<int>(threadIdx.x % 32) == leader) atomicAdd(&counts[common], static_cast<unsigned>(__popc(same)));
    if (value == common) value = -1;
  }
  if (value >= 0) atomicAdd(&counts[value], 1u);
}

// Whole warps walk over the frame in pieces of 32 x 8 pixels of a row; lanes past its end take part without a value.
__global__ void __launch_bounds__(kCountThreads)
    histogram_kernel(const Frame16 frame, std::uint32_t* counts, const bool vectors) {
  const std::int64_t across = (frame.width + 32 * kPixels - 1) / (32 * kPixels), pieces = across * frame.height;
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * (kCountThreads / 32);
  const auto lane = static_cast<std::int64_t>(threadIdx.x % 32);
  std::int64_t piece = static_cast<std::int64_t>(blockIdx.x) * (kCountThreads / 32) + threadIdx.x / 32;
  for (; piece < pieces; piece += warps) {
    const std::int64_t x = (piece % across * 32 + lane) * kPixels;
    const char* at =
        static_cast<const char*>(frame.pixels) + piece / across * frame.stride_y + x * frame.stride_x;
    std::int32_t values[kPixels];
    if (vectors && x + kPixels <= frame.width) {
      const uint4 read = *reinterpret_cast<const uint4*>(at);
      const std::uint32_t pairs[] = {read.x, read.y, read.z, read.w};
#pragma unroll
      for (int i = 0; i < kPixels; ++i) values[i] = static_cast<std::int32_t>(pairs[i / 2] >> (i % 2 * 16) & 0xffffu);
    } else {
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        values[i] = x + i < frame.width ? static_cast<std::int32_t>(load<std::uint16_t>(at + i * frame.stride_x)) : -1;
      }
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i) count(counts, values[i]);
  }
}

struct Ranks {
  Rank low, high;
};

// One block. Every thread sums its own 64 counts, a scan makes these places in the order of pixels, and the thread in
// whose stretch a place lies looks up its value.
__global__ void __launch_bounds__(kScanThreads)
    percentiles_kernel(const std::uint32_t* counts, const Ranks ranks, float* range, double* exact) {
  __shared__ std::uint32_t sums[2][kScanThreads];
  __shared__ std::int32_t found[4];
  const int me = static_cast<int>(threadIdx.x);
  const auto* mine = reinterpret_cast<const uint4*>(counts) + me * (kBinsEach / 4);
  std::uint32_t sum = 0;
  for (int i = 0; i < kBinsEach / 4; ++i) sum += mine[i].x + mine[i].y + mine[i].z + mine[i].w;
  int from = 0;
  sums[from][me] = sum;
  for (int by = 1; by < kScanThreads; by *= 2, from ^= 1) {
    __syncthreads();
    sums[from ^ 1][me] = sums[from][me] + (me >= by ? sums[from][me - by] : 0);
  }
  const std::int64_t end = sums[from][me], begin = end - sum;  // `from` is this thread's own, as it wrote it

  const std::int64_t places[4] = {ranks.low.below, above(ranks.low), ranks.high.below, above(ranks.high)};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (places[i] < begin || places[i] >= end) continue;
    std::int64_t seen = begin;
    int bin = me * kBinsEach;
    while ((seen += counts[bin]) <= places[i]) ++bin;
    found[i] = bin;
  }
  __syncthreads();
  if (me < 2) {
    const double value = percentile(me ? ranks.high : ranks.low, found[2 * me], found[2 * me + 1]);
    if (range) range[me] = static_cast<float>(value);
    if (exact) exact[me] = value;
  }
}

}  // namespace

Status histogram16_cuda(const Frame16& frame, std::uint32_t* counts, Stream stream) {
  if (problem_on_gpu(frame)) return {cudaErrorInvalidValue, "histogram16", "problem_on_gpu"};
  const Status cleared =
      status_of(cudaMemsetAsync(counts, 0, kCounts16 * sizeof(*counts), stream), "histogram16", "cudaMemsetAsync");
  if (!cleared.ok()) return cleared;
  const bool vectors = frame.stride_x == 2 && frame.stride_y % 16 == 0 && aligned(frame.pixels, 16);
  const std::int64_t pieces = (frame.width + 32 * kPixels - 1) / (32 * kPixels) * frame.height;
  const std::int64_t blocks = (pieces + kCountThreads / 32 - 1) / (kCountThreads / 32);
  const auto grid = static_cast<unsigned>(blocks < kCountBlocks ? blocks : kCountBlocks);
  return launch("histogram16", &histogram_kernel, dim3{grid, 1, 1}, dim3{kCountThreads, 1, 1}, 0, stream, frame, counts,
                vectors);
}

Status percentiles16_cuda(const Percentiles16Params& p, Stream stream) {
  if (problem_on_gpu(p)) return {cudaErrorInvalidValue, "percentiles16", "problem_on_gpu"};
  const Status counted = histogram16_cuda(p.frame, p.counts, stream);
  if (!counted.ok()) return counted;
  const std::int64_t pixels = p.frame.height * p.frame.width;
  const Ranks ranks{rank_of(p.low, pixels), rank_of(p.high, pixels)};
  return launch("percentiles16", &percentiles_kernel, dim3{1, 1, 1}, dim3{kScanThreads, 1, 1}, 0, stream,
                static_cast<const std::uint32_t*>(p.counts), ranks, p.range, p.exact);
}

}  // namespace ldf
