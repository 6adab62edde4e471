// Entropy on a GPU: a block counts a patch, or a part of a large one, in shared memory.
#include "entropy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "entropy_count.cuh"
#include "entropy_math.h"
#include "launch.cuh"
#include "sample_math.h"

namespace ldf {
namespace {

constexpr int kThreads = kBins;         // a thread a bin when the counts are read
constexpr int kBlocksPerProcessor = 4;  // at least: what bounds the registers
constexpr int kAhead = 4;               // loads that a thread has under way at once
constexpr int kSamplesAhead = 2;        // samples, each of four loads
constexpr std::int64_t kMostBlocks = 0x7fffffff;
constexpr std::int64_t kMostAlong = std::int64_t{1} << 30;  // pixels along a side, so that 32 bits hold them

// How the pixels of a patch are shared among blocks.
constexpr std::int64_t kBlocksWanted = 2048;       // of all patches: several for each place on the largest GPUs
constexpr std::int64_t kPixelsWorthABlock = 16384;  // fewer, and clearing and summing the counts take most of its time
constexpr std::int64_t kMostPixelsOfABlock = std::int64_t{1} << 30;  // it counts in 32 bits

// Parts of a patch of `pixels`, when there may be at most `most`. A function of the patch alone: no block needs to be
// told what the others do.
LDF_HD inline std::int64_t parts_of(std::int64_t pixels, std::int64_t most) {
  const std::int64_t useful = (pixels + kPixelsWorthABlock - 1) / kPixelsWorthABlock;
  return useful < most ? useful : most;
}

// Blocks launched for each of `patches` that have at most `pixels`.
std::int64_t blocks_per_patch(std::int64_t patches, std::int64_t pixels) {
  if (patches < 1) return 1;
  const std::int64_t least = (pixels + kMostPixelsOfABlock - 1) / kMostPixelsOfABlock;
  return std::max({std::int64_t{1}, least, parts_of(pixels, kBlocksWanted / patches)});
}

std::int64_t workspace_bytes(std::int64_t patches, std::int64_t blocks) {
  return blocks == 1 ? 0 : patches * blocks * kBins * static_cast<std::int64_t>(sizeof(std::uint32_t));
}

struct Patch {
  const char* first;
  int height, width;
  std::int64_t stride_y, stride_x;
};

__device__ inline Patch patch_of(const EntropyParams& p, std::int64_t i) {
  const char* first = static_cast<const char*>(p.pixels);
  if (!p.boxes) {
    return {first + i * p.stride_n, static_cast<int>(p.height), static_cast<int>(p.width), p.stride_y, p.stride_x};
  }
  const std::int32_t* box = p.boxes + 4 * i;
  return {first + box[1] * p.stride_y + box[0] * p.stride_x, box[3], box[2], p.stride_y, p.stride_x};
}

// The same pixels in the order in which they lie in memory, which for a histogram is as good as any; as one row where
// there are no gaps between rows.
__device__ inline Patch in_memory_order(Patch p, std::int64_t pixel_bytes) {
  if (p.stride_x < 0) p = {p.first + (p.width - 1) * p.stride_x, p.height, p.width, p.stride_y, -p.stride_x};
  if (p.stride_y < 0) p = {p.first + (p.height - 1) * p.stride_y, p.height, p.width, -p.stride_y, p.stride_x};
  if (p.stride_y < p.stride_x && p.stride_x != pixel_bytes) p = {p.first, p.width, p.height, p.stride_x, p.stride_y};
  const std::int64_t pixels = std::int64_t{p.height} * p.width;
  const bool dense = p.stride_y == p.width * p.stride_x && pixels < kMostAlong;
  return dense ? Patch{p.first, 1, static_cast<int>(pixels), 0, p.stride_x} : p;
}

__device__ inline int bin_of_pixel(std::uint8_t value) { return value; }
__device__ inline int bin_of_pixel(double value) { return bin_of(value); }
template <class T>
__device__ inline int bin_of_pixel(T value) {
  return bin_of(to_float(value));
}

// In memory that nobody writes meanwhile. Of 16 bytes this is said, since the compiler loses sight of where `at` points.
template <class Chunk>
__device__ inline Chunk read_chunk(const char* at) {
  if constexpr (std::is_same_v<Chunk, uint4>) return __ldg(reinterpret_cast<const uint4*>(at));
  else return *reinterpret_cast<const Chunk*>(at);
}

// Counts what is this part's of a patch that is read in chunks of kSize pixels: those between two addresses that are
// multiples of 16 bytes, in one load where the patch holds all of them; or single pixels where they lie apart.
template <class T, int kSize>
__device__ void count_part(const Patch& patch, std::int64_t part, std::int64_t parts, BlockHistogram& h) {
  using Chunk = std::conditional_t<kSize == 1, T, uint4>;
  const auto before = [](const char* row) {  // pixels between the last such address and the row
    return kSize == 1 ? 0 : static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % 16 / sizeof(T));
  };
  // Rows that may begin anywhere between two such addresses touch up to one chunk more.
  const int spread = before(patch.first) == 0 && patch.stride_y % 16 == 0 ? kSize - 1 : 2 * (kSize - 1);
  const int chunks = (patch.width + spread) / kSize;  // a row
  const std::int64_t all = std::int64_t{patch.height} * chunks, share = (all + parts - 1) / parts;
  const std::int64_t begin = part * share, end = begin + share < all ? begin + share : all;
  const auto mine = static_cast<std::uint32_t>(begin < end ? end - begin : 0);

  const std::int64_t start = begin + threadIdx.x;
  const std::int64_t y = patch.height == 1 ? 0 : start / chunks;
  const char* row = patch.first + y * patch.stride_y;
  auto chunk = static_cast<int>(start - y * chunks);
  const std::int64_t down = kThreads / chunks * patch.stride_y;
  const int across = kThreads % chunks;
  for (std::uint32_t k = threadIdx.x; k < mine;) {
    Chunk loaded[kAhead];
    bool whole[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const bool there = k < mine;
      const int x = chunk * kSize - before(row);
      const char* at = row + x * patch.stride_x;
      whole[a] = there && x >= 0 && x + kSize <= patch.width;
      if (whole[a]) {
        loaded[a] = read_chunk<Chunk>(at);
      } else if (there) {
        for (int e = x < 0 ? -x : 0; e < kSize && x + e < patch.width; ++e) {
          count(h, bin_of_pixel(*reinterpret_cast<const T*>(at + e * patch.stride_x)));
        }
      }
      k += kThreads;
      row += down;
      chunk += across;
      if (chunk >= chunks) {
        chunk -= chunks;
        row += patch.stride_y;
      }
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (!whole[a]) continue;
      T values[kSize];
      std::memcpy(values, &loaded[a], sizeof(values));
#pragma unroll
      for (int i = 0; i < kSize; ++i) count(h, bin_of_pixel(values[i]));
    }
  }
}

// Ends a block: writes the entropy of a patch that it had for itself, or its part's counts into the workspace.
__device__ void finish(BlockHistogram& h, std::int64_t parts, double* bits, std::uint32_t* workspace) {
  __syncthreads();
  const int bin = static_cast<int>(threadIdx.x);
  const std::uint32_t mine = counted(h, bin);
  if (parts > 1) {
    workspace[std::int64_t{blockIdx.x} * kBins + bin] = mine;
    return;
  }
  __syncthreads();  // the counts have been read: their memory is free
  const double entropy = entropy_of_counts(mine, reinterpret_cast<double*>(h.counts));
  if (bin == 0) *bits = entropy;
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    entropy_kernel(const EntropyParams p, std::uint32_t blocks, std::uint32_t* workspace) {
  __shared__ BlockHistogram h;
  const std::int64_t i = blockIdx.x / blocks, part = blockIdx.x % blocks;
  const Patch patch = in_memory_order(patch_of(p, i), sizeof(T));
  const std::int64_t parts = parts_of(std::int64_t{patch.height} * patch.width, blocks);
  if (part >= parts) return;
  clear(h);
  __syncthreads();
  if (patch.stride_x == sizeof(T)) {
    count_part<T, Vector<T>::kSize>(patch, part, parts, h);
  } else {
    count_part<T, 1>(patch, part, parts, h);
  }
  finish(h, parts, p.bits + i, workspace);
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    entropy_affine_kernel(const EntropyAffineParams p, std::uint32_t blocks, std::uint32_t* workspace) {
  __shared__ BlockHistogram h;
  const std::int64_t i = blockIdx.x / blocks, part = blockIdx.x % blocks;
  const std::int64_t size = p.size, pixels = size * size;
  const std::int64_t parts = parts_of(pixels, blocks);
  if (part >= parts) return;
  clear(h);
  __syncthreads();
  const std::int32_t* box = p.boxes + 3 * (i / p.count);
  const BoxMap map = box_map(box[2], p.size, p.maps + 6 * (i / p.count));
  const char* first = static_cast<const char*>(p.planes) + i % p.count * p.stride_p + box[1] * p.stride_y +
                      box[0] * p.stride_x;
  const std::int64_t share = (pixels + parts - 1) / parts, begin = part * share;
  const std::int64_t end = begin + share < pixels ? begin + share : pixels;
  std::int64_t k = begin + threadIdx.x;
  auto x = static_cast<std::int32_t>(k % size), y = static_cast<std::int32_t>(k / size);
  const std::int32_t across = kThreads % p.size, down = kThreads / p.size;
  while (k < end) {
    float values[kSamplesAhead];
#pragma unroll
    for (int a = 0; a < kSamplesAhead; ++a) {
      values[a] = k < end ? value_at<T>(first, p.stride_y, p.stride_x, place_of(map, x, y)) : -1.0f;  // not counted
      k += kThreads;
      y += down;
      x += across;
      if (x >= p.size) {
        x -= p.size;
        ++y;
      }
    }
#pragma unroll
    for (int a = 0; a < kSamplesAhead; ++a) count(h, bin_of(values[a]));
  }
  finish(h, parts, p.bits + i, workspace);
}

// Adds up the parts of each patch, in the order of a thread a bin. Patches in one part have their entropy already.
__global__ void __launch_bounds__(kBins) entropy_of_parts_kernel(const std::int32_t* boxes, std::int64_t pixels,
                                                                 std::uint32_t blocks, const std::uint32_t* workspace,
                                                                 double* bits) {
  __shared__ double scratch[32];
  const std::int64_t i = blockIdx.x;
  if (boxes) pixels = std::int64_t{boxes[4 * i + 2]} * boxes[4 * i + 3];
  const std::int64_t parts = parts_of(pixels, blocks);
  if (parts == 1) return;
  double count = 0.0;
  const std::uint32_t* counts = workspace + i * blocks * kBins + threadIdx.x;
  for (std::int64_t part = 0; part < parts; ++part) count += counts[part * kBins];
  const double entropy = entropy_of_counts(count, scratch);
  if (threadIdx.x == 0) bits[i] = entropy;
}

// Either kernel, and the sum over parts where there are any.
template <class Params>
Status launch_parts(const char* name, void (*kernel)(Params, std::uint32_t, std::uint32_t*), const Params& params,
                    std::int64_t patches, std::int64_t pixels, const std::int32_t* boxes, void* workspace,
                    Stream stream) {
  const std::int64_t blocks = blocks_per_patch(patches, pixels);
  if (patches > kMostBlocks / blocks) return {cudaErrorInvalidValue, name, "entropy (more blocks than a grid holds)"};
  if (blocks > 1 && !workspace) return {cudaErrorInvalidValue, name, "entropy (no workspace)"};
  auto* counts = static_cast<std::uint32_t*>(workspace);
  const auto share = static_cast<std::uint32_t>(blocks);
  const Status status =
      launch(name, kernel, static_cast<unsigned>(patches * blocks), kThreads, 0, stream, params, share, counts);
  if (status.code || blocks == 1) return status;
  return launch("entropy of parts", entropy_of_parts_kernel, static_cast<unsigned>(patches), kBins, 0, stream, boxes,
                pixels, share, counts, params.bits);
}

template <class T>
Status launch_entropy(const EntropyParams& p, void* workspace, Stream stream) {
  if (std::max(p.height, p.width) >= kMostAlong) return {cudaErrorInvalidValue, "entropy", "entropy (patch too large)"};
  return launch_parts("entropy", entropy_kernel<T>, p, p.count, p.height * p.width, p.boxes, workspace, stream);
}

template <class T>
Status launch_affine(const EntropyAffineParams& p, void* workspace, Stream stream) {
  if (p.size >= kMostAlong) return {cudaErrorInvalidValue, "entropy of affine boxes", "entropy (patch too large)"};
  return launch_parts("entropy of affine boxes", entropy_affine_kernel<T>, p, p.patches * p.count,
                      std::int64_t{p.size} * p.size, nullptr, workspace, stream);
}

}  // namespace

std::int64_t entropy_workspace_bytes(const EntropyParams& p) {
  return workspace_bytes(p.count, blocks_per_patch(p.count, p.height * p.width));
}

std::int64_t entropy_affine_workspace_bytes(const EntropyAffineParams& p) {
  const std::int64_t patches = p.patches * p.count;
  return workspace_bytes(patches, blocks_per_patch(patches, std::int64_t{p.size} * p.size));
}

Status entropy_cuda(const EntropyParams& params, void* workspace, Stream stream) {
  switch (params.type) {
    case Pixel::u8: return launch_entropy<std::uint8_t>(params, workspace, stream);
    case Pixel::f32: return launch_entropy<float>(params, workspace, stream);
    case Pixel::f64: return launch_entropy<double>(params, workspace, stream);
    case Pixel::f16: return launch_entropy<Half>(params, workspace, stream);
    case Pixel::bf16: return launch_entropy<Bfloat16>(params, workspace, stream);
  }
  return {cudaErrorInvalidValue, "entropy", "entropy (pixel type)"};
}

Status entropy_affine_cuda(const EntropyAffineParams& params, void* workspace, Stream stream) {
  switch (params.type) {
    case Pixel::f32: return launch_affine<float>(params, workspace, stream);
    case Pixel::f16: return launch_affine<Half>(params, workspace, stream);
    case Pixel::bf16: return launch_affine<Bfloat16>(params, workspace, stream);
    case Pixel::u8:
    case Pixel::f64: break;
  }
  return {cudaErrorInvalidValue, "entropy of affine boxes", "entropy (pixel type)"};
}

}  // namespace ldf
