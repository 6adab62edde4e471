#include "adain.h"

#include "adain_split.cuh"
#include "launch.cuh"
#include "norm_forward.cuh"

namespace ldf {
namespace {

// NCHW, a plane that fits into a block's shared memory: x is read once. Threads only read back what they wrote.
template <class T>
__global__ void __launch_bounds__(1024) adain_held(const Forward p) {
  constexpr int kSize = Vector<T>::kSize;
  extern __shared__ __align__(16) unsigned char bytes[];
  __shared__ float scratch[32];
  Vector<T>* held = reinterpret_cast<Vector<T>*>(bytes);
  const std::int64_t plane = blockIdx.x;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const T* residual = p.residual ? static_cast<const T*>(p.residual) + plane * p.pixels : nullptr;
  T* y = static_cast<T*>(p.y) + plane * p.pixels;
  const Run run = run_of(x, p.pixels);
  const Chunk<T> all(run, 0, {1, run.vectors});
  const int vectors = static_cast<int>(all.end), threads = blockDim.x;
  const std::int64_t loose = all.loose();
  const float first = to_float(x[0]);

  float sum = 0.0f;
#pragma unroll 4
  for (int j = threadIdx.x; j < vectors; j += threads) {
    const Vector<T> v = load_vector(x + all.at(j));
    held[j] = v;
#pragma unroll
    for (int e = 0; e < kSize; ++e) sum += to_float(element(v, e)) - first;
  }
  const float loose_x = loose >= 0 ? to_float(x[loose]) : first;
  sum += loose_x - first;
  const float count = static_cast<float>(p.pixels);
  const float offset = block_sum(sum, scratch) / count;

  float m2 = 0.0f;
  for (int j = threadIdx.x; j < vectors; j += threads) {
    const Vector<T> v = held[j];
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const float d = to_float(element(v, e)) - first - offset;
      m2 += d * d;
    }
  }
  if (loose >= 0) m2 += (loose_x - first - offset) * (loose_x - first - offset);
  const Moments moments{count, offset, block_sum(m2, scratch)};
  const AdainMap map = finish<Scope::plane>(p, first, moments, 0, plane, threadIdx.x == 0);

  const bool y_aligned = is_aligned(y + all.head), residual_aligned = residual && is_aligned(residual + all.head);
#pragma unroll 4
  for (int j = threadIdx.x; j < vectors; j += threads) {
    Vector<T> r{};
    if (residual) r = load_part(residual + all.at(j), residual_aligned);
    store_part(y + all.at(j), mapped(held[j], r, p, [&](int) { return map; }), y_aligned);
  }
  if (loose >= 0) {
    const float value = mapped(loose_x, map, p.style.relu);
    y[loose] = from_float<T>(residual ? value + to_float(residual[loose]) : value);
  }
}

// The planes (n = 1) or samples of a lot.
Forward part_of(const Forward& p, Dtype type, std::int64_t first_plane, std::int64_t n, std::int64_t c) {
  Forward part = p;
  const std::int64_t bytes = first_plane * p.pixels * size_of(type);
  part.x = static_cast<const char*>(p.x) + bytes;
  part.y = static_cast<char*>(p.y) + bytes;
  if (p.residual) part.residual = static_cast<const char*>(p.residual) + bytes;
  if (p.style.weight) part.style.weight += first_plane;
  if (p.style.bias) part.style.bias += first_plane;
  if (p.offset) part.offset += first_plane;
  if (p.deviation) part.deviation += first_plane;
  part.n = n;
  part.c = c;
  return part;
}

template <class T>
Status adain(const AdainParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w, planes = params.n * params.c;
  const std::int64_t bytes = pixels * size_of(params.type);
  Forward p{params.x, params.residual, params.y, params.n, params.c, pixels,
            {params.weight, params.bias, static_cast<float>(params.eps), params.relu},
            params.offset, params.rstd, static_cast<const Partial*>(params.workspace), {}};

  if (params.layout == Layout::nchw && worth_holding(planes, bytes)) {
    const std::int64_t vectors = pixels / Vector<T>::kSize;
    const auto shared = static_cast<std::size_t>(vectors * 16);
    if (bytes <= kHeldEverywhere || shared <= shared_bytes_limit(adain_held<T>)) {
      return each_lot(planes, kMostBlocks, [&](std::int64_t first, std::int64_t count) {
        return launch("adain_held", adain_held<T>, static_cast<unsigned>(count), held_threads(vectors), shared, stream,
                      part_of(p, params.type, first, 1, count));
      });
    }
  }

  const Split s = split_of(params.layout, params.type, params.n, params.c, pixels, 1);
  auto* partials = static_cast<Partial*>(params.workspace);
  p.partial_cut = s.cut;
  if (params.layout == Layout::nchw) {
    return each_lot(planes, s.lot, [&](std::int64_t first, std::int64_t count) {
      const Forward part = part_of(p, params.type, first, 1, count);
      const auto grid = static_cast<unsigned>(count * s.cut.chunks);
      const Status status = launch("adain_moments", run_moments<T>, grid, kRunThreads, 0, stream,
                                   static_cast<const T*>(part.x), pixels, s.cut, partials);
      if (!status.ok()) return status;
      return launch("adain_apply", apply_runs<T, Scope::plane>, grid, kRunThreads, 0, stream, part, s.cut);
    });
  }
  return each_lot(params.n, s.lot, [&](std::int64_t first, std::int64_t count) -> Status {
    const Forward part = part_of(p, params.type, first * params.c, count, params.c);
    const std::int64_t blocks = count * s.columns.chunks * s.columns.slabs;
    if (blocks > kMostBlocks) return {cudaErrorInvalidValue, "adain_moments", "adain_cuda (channels)"};
    const auto grid = static_cast<unsigned>(blocks);
    const Status status = launch("adain_moments", column_moments<T>, grid, s.columns.threads, 0, stream,
                                 static_cast<const T*>(part.x), s.columns, partials);
    if (!status.ok()) return status;
    return launch("adain_apply", apply_columns<T, Scope::plane>, grid, s.columns.threads, 0, stream, part, s.columns);
  });
}

}  // namespace

std::int64_t adain_workspace(const AdainParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  const std::int64_t bytes = p.h * p.w * size_of(p.type);
  if (p.layout == Layout::nchw && worth_holding(p.n * p.c, bytes) && bytes <= kHeldEverywhere) return 0;
  const auto size = static_cast<std::int64_t>(sizeof(Partial));
  return split_of(p.layout, p.type, p.n, p.c, p.h * p.w, 1).partials * size;
}

Status adain_cuda(const AdainParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return adain<decltype(zero)>(params, stream); });
}

}  // namespace ldf
