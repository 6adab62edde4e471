// How blocks share a dense tensor [N, C, H, W], and how threads walk over their part of it 16 bytes at a time.
//
// NCHW: a plane, or a whole sample, is a run of neighbours; chunks of a run go to different blocks.
// NHWC: a sample has H*W rows of C channels; a block takes a slab of up to 32 bytes of channels (a sector, the least
// that memory moves) and a chunk of the rows. Its threads stand in `lanes` columns and walk down the rows.
#pragma once

#include <algorithm>

#include "dtype.h"
#include "status.h"

namespace ldf {

constexpr int kRunThreads = 256;
constexpr int kColumnThreads = 512;
constexpr int kBatch = 4;        // vectors a thread has in flight
constexpr int kShortBatch = 2;   // and where there are two tensors, or maps for each of its channels

// Sizes below were chosen by reasoning for the large GPUs (132 or 148 SMs, 40 MB and more of L2); any value is right.
constexpr std::int64_t kBlocks = 144;                  // one for every SM
constexpr std::int64_t kLotBytes = 16 * 1024 * 1024;  // read, then read again: what should still be in L2
constexpr std::int64_t kChunkBytes = kRunThreads * kBatch * 16;
constexpr std::int64_t kMostBlocks = 0x7fffffff;       // of a grid

LDF_HD inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

constexpr std::int64_t ratio_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// ---- vectors that may be cut or lie askew

template <class T>
__device__ bool is_aligned(const T* pointer) {
  return elements_to_alignment(pointer) == 0;
}

// `count` elements from `from`; `aligned` promises 16-byte alignment and is the same for all threads. The rest is 0.
template <class T>
__device__ Vector<T> load_part(const T* from, bool aligned, int count = Vector<T>::kSize) {
  if (aligned && count == Vector<T>::kSize) return load_vector(from);
  Vector<T> vector{};
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    if (i < count) set_element(vector, i, from[i]);
  }
  return vector;
}

template <class T>
__device__ void store_part(T* to, const Vector<T>& vector, bool aligned, int count = Vector<T>::kSize) {
  if (aligned && count == Vector<T>::kSize) return store_vector(to, vector);
#pragma unroll
  for (int i = 0; i < Vector<T>::kSize; ++i) {
    if (i < count) to[i] = element(vector, i);
  }
}

// ---- runs

// A run of `count` elements: up to the first aligned address of x one by one, then vectors, then one by one.
struct Run {
  std::int64_t count, vectors;
  int head;  // elements before the first vector
};

template <class T>
__device__ Run run_of(const T* first, std::int64_t count) {
  const int head = static_cast<int>(least(elements_to_alignment(first), count));
  return {count, (count - head) / Vector<T>::kSize, head};
}

// How runs of one length are cut. Lengths are given, not divided out in every block: 64-bit divisions are slow.
struct Cut {
  int chunks;
  std::int64_t length;  // vectors of a chunk; the last ones may get fewer or none
};

// Chunk `k` of a run: the vectors [begin, end), and the loose elements if it is the first or the last.
template <class T>
struct Chunk {
  std::int64_t begin, end;
  int head;           // of the run: where vector 0 starts
  int heads, tails;   // loose elements of this chunk
  std::int64_t tail;  // where those behind start

  __device__ Chunk(const Run& run, int k, const Cut& cut)
      : begin(least(k * cut.length, run.vectors)),
        end(least(begin + cut.length, run.vectors)),
        head(run.head),
        heads(k == 0 ? run.head : 0),
        tails(0),
        tail(run.head + run.vectors * Vector<T>::kSize) {
    if (k == cut.chunks - 1) tails = static_cast<int>(run.count - tail);
  }

  __device__ std::int64_t count() const { return (end - begin) * Vector<T>::kSize + heads + tails; }

  // Where vector j starts in the run.
  __device__ std::int64_t at(std::int64_t j) const { return head + j * Vector<T>::kSize; }

  // The loose element that this thread sees to, or -1.
  __device__ std::int64_t loose() const {
    const int i = threadIdx.x;
    return i < heads ? i : i < heads + tails ? tail + (i - heads) : -1;
  }
};

// Chunks for each of `runs` runs: enough blocks to fill the GPU a few times, none of them tiny. Those who need a run's
// statistics read one partial result a chunk, hence the bound.
inline Cut cut_of(std::int64_t runs, std::int64_t count, Dtype type) {
  const std::int64_t wanted = ratio_up(8 * kBlocks, runs);
  const std::int64_t most = ratio_up(count * size_of(type), kChunkBytes);
  const auto chunks = std::clamp<std::int64_t>(std::min(wanted, most), 1, 512);
  return {static_cast<int>(chunks), ratio_up(ratio_up(count * size_of(type), 16), chunks)};
}

// ---- columns

struct Columns {
  std::int64_t rows, c;    // of a sample
  std::int64_t length;     // rows of a chunk; the last ones may get fewer or none
  unsigned slabs, chunks;  // of the channels, of the rows
  unsigned lanes;          // vectors beside each other in a slab, 1 or 2
  unsigned threads;        // of a block: a power of two from 32 to kColumnThreads
};

// As many chunks as fill the GPU: generously while few partial results come of it, else one block for every SM.
inline Columns columns_of(std::int64_t n, std::int64_t c, std::int64_t rows, Dtype type) {
  const int size = static_cast<int>(16 / size_of(type));
  const int lanes = c > size ? 2 : 1;
  const std::int64_t slabs = ratio_up(c, lanes * size);
  const std::int64_t several = ratio_up(4 * kBlocks, n * slabs);
  const std::int64_t one = ratio_up(kBlocks, n * slabs);
  const std::int64_t most = ratio_up(rows, 2 * kColumnThreads / lanes);
  const std::int64_t chunks = std::min({several, std::max<std::int64_t>(one, 16), most});
  const std::int64_t length = ratio_up(rows, chunks);
  unsigned threads = 32;
  while (threads < kColumnThreads && threads < length * lanes) threads *= 2;
  return {rows, c, length, static_cast<unsigned>(slabs), static_cast<unsigned>(chunks), static_cast<unsigned>(lanes),
          threads};
}

// This thread's place: rows [row, end) in steps of `step` of sample n, `count` channels from `channel` on.
template <class T>
struct Column {
  unsigned slab, chunk, n;
  int step, count;  // count: 0 beside the last channel
  std::int64_t row, end, channel;

  __device__ Column(const Columns& c, unsigned block)
      : slab(block % c.slabs),  // neighbours in memory are neighbours in time
        chunk(block / c.slabs % c.chunks),
        n(block / c.slabs / c.chunks),
        step(static_cast<int>(blockDim.x / c.lanes)),
        row(chunk * c.length + threadIdx.x / c.lanes),
        end(least((chunk + 1) * c.length, c.rows)),
        channel((std::int64_t{slab} * c.lanes + threadIdx.x % c.lanes) * Vector<T>::kSize) {
    const std::int64_t left = c.c - channel;
    count = static_cast<int>(left < 0 ? 0 : least(left, Vector<T>::kSize));
  }

  // Where a row's channels of this thread start.
  __device__ std::int64_t at(const Columns& c, std::int64_t r) const { return (n * c.rows + r) * c.c + channel; }
};

// Whether every row of a tensor starts at an aligned address.
template <class T>
__device__ bool rows_aligned(const T* tensor, std::int64_t c) {
  return c % Vector<T>::kSize == 0 && is_aligned(tensor);
}

__device__ inline float rows_in(const Columns& c, unsigned chunk) {
  return static_cast<float>(least((chunk + 1) * c.length, c.rows) - least(chunk * c.length, c.rows));
}

// ---- lots

// How many of `total` planes (or samples) of `bytes` each go together, so that what reads them a second time finds
// them in L2; all lots are about equal.
inline std::int64_t lot_of(std::int64_t total, std::int64_t bytes) {
  const std::int64_t most = std::clamp<std::int64_t>(kLotBytes / bytes, 1, total);
  return ratio_up(total, ratio_up(total, most));
}

// Calls run(first, count) for every lot, until one is refused.
template <class Run>
Status each_lot(std::int64_t total, std::int64_t lot, Run run) {
  for (std::int64_t first = 0; first < total; first += lot) {
    if (const Status status = run(first, std::min(lot, total - first)); !status.ok()) return status;
  }
  return {};
}

// ---- types

// Calls `f` with a value of the element type.
template <class F>
auto with_type(Dtype type, F f) {
  switch (type) {
    case Dtype::f16: return f(Half{});
    case Dtype::bf16: return f(Bfloat16{});
    default: return f(0.0f);
  }
}

}  // namespace ldf
