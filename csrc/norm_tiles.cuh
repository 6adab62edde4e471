// How a dense tensor [N, C, H, W] is cut into tiles that a block holds in registers, 16 bytes at a time.
//
// NCHW: a plane, or a whole sample, is a run of neighbours, and a tile a piece of it.
// NHWC: a sample has H*W rows of C channels; a tile is a slab of up to 64 bytes of channels (two sectors, the least that
// large GPUs read) and a number of rows. Its threads stand in `lanes` columns and have rows below each other.
#pragma once

#include <algorithm>

#include "dtype.h"
#include "status.h"
#include "two_steps.cuh"

namespace ldf {

constexpr int kBatch = 8;  // vectors of a thread, of all tensors read: all of them are under way before the first is used

constexpr std::int64_t kLotBytes = 12 * 1024 * 1024;  // read, and read again two lots later; any value is right

LDF_HD constexpr std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

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

// How runs of one length are cut into tiles. Given, not divided out in every block: 64-bit divisions are slow.
struct Cut {
  std::int64_t count;  // elements of a run
  unsigned tiles;
  int length;  // vectors of a tile; the last ones may get fewer or none
};

// For threads that hold `batch` vectors of the run each.
inline Cut cut_of(std::int64_t count, Dtype type, int batch) {
  const std::int64_t vectors = ratio_up(count * size_of(type), 16);
  const std::int64_t tiles = ratio_up(vectors, batch * kThreads);
  return {count, static_cast<unsigned>(tiles), static_cast<int>(ratio_up(vectors, tiles))};
}

// Tile `k` of a run that begins at `run`: up to the first aligned address elements one by one, then vectors, then one
// by one again; these loose elements are the first and the last tile's.
template <class T>
struct RunTile {
  std::int64_t begin;  // of the tile's vectors, in elements
  int vectors;
  int heads, tails;
  std::int64_t tail;  // where the tails begin
  int threads;        // of the block

  __device__ RunTile(const T* run, const Cut& cut, unsigned k, int threads = kThreads) : threads(threads) {
    constexpr int kSize = Vector<T>::kSize;
    const int head = static_cast<int>(least(elements_to_alignment(run), cut.count));
    const std::int64_t all = (cut.count - head) / kSize, first = least(std::int64_t{k} * cut.length, all);
    begin = head + first * kSize;
    vectors = static_cast<int>(least(cut.length, all - first));
    tail = head + all * kSize;
    heads = k == 0 ? head : 0;
    tails = k == cut.tiles - 1 ? static_cast<int>(cut.count - tail) : 0;
  }

  __device__ float count() const { return static_cast<float>(vectors * Vector<T>::kSize + heads + tails); }

  // The loose element that this thread sees to, or -1.
  __device__ std::int64_t loose() const {
    const int i = threadIdx.x;
    return i < heads ? i : i < heads + tails ? tail + (i - heads) : -1;
  }

  // Whether this thread has an `u`-th vector, and where.
  __device__ bool has(int u) const { return static_cast<int>(threadIdx.x) + u * threads < vectors; }
  __device__ std::int64_t at(int u) const {
    return begin + static_cast<int>(threadIdx.x) * Vector<T>::kSize + u * threads * Vector<T>::kSize;
  }

  template <int kCount>
  __device__ void load(const T* run, bool aligned, Vector<T> (&v)[kCount]) const {
#pragma unroll
    for (int u = 0; u < kCount; ++u) v[u] = has(u) ? load_part(run + at(u), aligned) : Vector<T>{};
  }
};

// ---- columns

struct Columns {
  std::int64_t rows, c;    // of a sample
  unsigned slabs, tiles;   // of the channels; of the rows of a slab
  unsigned lanes;          // vectors beside each other in a slab: 1, 2 or 4
  int length;              // rows of a tile; the last ones may get fewer or none
};

inline Columns columns_of(std::int64_t c, std::int64_t rows, Dtype type, int batch) {
  const std::int64_t size = 16 / size_of(type), vectors = ratio_up(c, size);
  const std::int64_t lanes = vectors > 2 ? 4 : vectors;
  const std::int64_t tiles = ratio_up(rows, batch * kThreads / lanes);
  return {rows, c, static_cast<unsigned>(ratio_up(vectors, lanes)), static_cast<unsigned>(tiles),
          static_cast<unsigned>(lanes), static_cast<int>(ratio_up(rows, tiles))};
}

// This thread's column of a tile: rows row, row + step, ... < length of it; `count` channels from `channel` on.
template <class T>
struct Column {
  int row, length, step, count;  // count: 0 beside the last channel
  unsigned channel;
  std::int64_t first;  // element of row `row`
  std::int64_t apart;  // elements from one of the thread's rows to its next
  int shift;           // which halves kThreads down to `step`

  __device__ Column(const Columns& c, std::int64_t sample, unsigned slab, unsigned k) {
    shift = c.lanes >> 1;  // of 1, 2, 4
    const int lane = threadIdx.x & (c.lanes - 1);
    row = threadIdx.x >> shift;
    step = kThreads >> shift;
    channel = (slab * c.lanes + lane) * Vector<T>::kSize;
    const std::int64_t begin = least(std::int64_t{k} * c.length, c.rows);
    length = static_cast<int>(least(c.length, c.rows - begin));
    first = (sample * c.rows + begin + row) * c.c + channel;
    apart = step * c.c;
    const std::int64_t left = c.c - channel;
    count = static_cast<int>(left < 0 ? 0 : least(left, Vector<T>::kSize));
  }

  __device__ int rows() const { return row < length ? ((length - row - 1) << shift) / kThreads + 1 : 0; }
  __device__ bool has(int u) const { return row + u * step < length; }
  __device__ std::int64_t at(int u) const { return first + u * apart; }

  // `kWhole`: all rows and slabs are whole vectors at aligned addresses.
  template <bool kWhole>
  __device__ Vector<T> load_one(const T* tensor, int u, bool aligned) const {
    if (!has(u)) return {};
    return kWhole ? load_vector(tensor + at(u)) : load_part(tensor + at(u), aligned, count);
  }
  template <bool kWhole, int kCount>
  __device__ void load(const T* tensor, bool aligned, Vector<T> (&v)[kCount]) const {
    if (kWhole && rows() == kCount) {
      const T* from = tensor + first;
#pragma unroll
      for (int u = 0; u < kCount; ++u, from += apart) v[u] = load_vector(from);
      return;
    }
#pragma unroll
    for (int u = 0; u < kCount; ++u) v[u] = load_one<kWhole>(tensor, u, aligned);
  }

  template <bool kWhole>
  __device__ void store(T* tensor, int u, const Vector<T>& v, bool aligned) const {
    if (kWhole) {
      store_vector(tensor + at(u), v);
    } else {
      store_part(tensor + at(u), v, aligned, count);
    }
  }
};

// Whether every row of a tensor starts at an aligned address.
template <class T>
LDF_HD bool rows_aligned(const T* tensor, std::int64_t c) {
  return c % Vector<T>::kSize == 0 && elements_to_alignment(tensor) == 0;
}

// Whether slabs of these tensors are whole vectors.
template <class T>
bool whole_slabs(const Columns& columns, std::initializer_list<const void*> tensors) {
  return columns.c % (columns.lanes * Vector<T>::kSize) == 0 &&
         std::all_of(tensors.begin(), tensors.end(),
                     [&](const void* t) { return rows_aligned(static_cast<const T*>(t), columns.c); });
}

__device__ inline float rows_in(const Columns& c, unsigned tile) {
  return static_cast<float>(least(c.length, c.rows - least(std::int64_t{tile} * c.length, c.rows)));
}

// ---- groups

// Groups of `bytes` each in lots; all lots are about equal.
inline Plan plan_of(std::int64_t groups, std::int64_t bytes, std::int64_t first, std::int64_t second) {
  const std::int64_t most = std::clamp<std::int64_t>(kLotBytes / bytes, 1, groups), lots = ratio_up(groups, most);
  const std::int64_t lot = ratio_up(groups, lots);
  return {static_cast<unsigned>(groups), static_cast<unsigned>(first), static_cast<unsigned>(second),
          static_cast<unsigned>(ratio_up(groups, lot)), static_cast<unsigned>(lot)};
}

constexpr std::int64_t kMostGroups = 0x7fffffff;

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
