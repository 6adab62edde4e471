#include "adain.h"
#include "adain_split.cuh"
#include "launch.cuh"
#include "norm_backward.cuh"

namespace ldf {
namespace {

// NCHW, a plane of which x and grad_y fit into a block's shared memory together: both are read once.
template <class T>
__global__ void __launch_bounds__(1024) adain_backward_held(const Backward p) {
  constexpr int kSize = Vector<T>::kSize;
  extern __shared__ __align__(16) unsigned char bytes[];
  __shared__ Sums scratch[32];
  const std::int64_t plane = blockIdx.x;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const T* g = static_cast<const T*>(p.grad_y) + plane * p.pixels;
  T* to = static_cast<T*>(p.grad_x) + plane * p.pixels;
  const Run run = run_of(x, p.pixels);
  const Chunk<T> all(run, 0, {1, run.vectors});
  const int vectors = static_cast<int>(all.end), threads = blockDim.x;
  Vector<T>* held_x = reinterpret_cast<Vector<T>*>(bytes);
  Vector<T>* held_g = held_x + vectors;
  const std::int64_t loose = all.loose();
  const float first = to_float(x[0]), rstd = p.deviation[plane];
  const AdainMap map = saved_map<Scope::plane>(p, first, rstd, 0, plane);
  const bool g_aligned = is_aligned(g + all.head), to_aligned = is_aligned(to + all.head), relu = p.style.relu;

  Sums own[1] = {};
#pragma unroll 2
  for (int j = threadIdx.x; j < vectors; j += threads) {
    const Vector<T> vx = load_vector(x + all.at(j)), vg = load_part(g + all.at(j), g_aligned);
    held_x[j] = vx;
    held_g[j] = vg;
#pragma unroll
    for (int e = 0; e < kSize; ++e) add(own[0], to_float(element(vx, e)), to_float(element(vg, e)), map, relu);
  }
  const float loose_x = loose >= 0 ? to_float(x[loose]) : 0.0f, loose_g = loose >= 0 ? to_float(g[loose]) : 0.0f;
  if (loose >= 0) add(own[0], loose_x, loose_g, map, relu);
  block_fold(own, 1, scratch);
  const Sums sums{own[0].g, own[0].gx * rstd};
  const GradientMap gradients = gradient_map<Scope::plane>(p, first, sums, 0, plane, threadIdx.x == 0);

#pragma unroll 2
  for (int j = threadIdx.x; j < vectors; j += threads) {
    store_part(to + all.at(j), gradient_at(held_x[j], held_g[j], [&](int) { return gradients; }, relu), to_aligned);
  }
  if (loose >= 0) to[loose] = from_float<T>(gradient_at(loose_x, loose_g, gradients, relu));
}

// The planes (n = 1) or samples of a lot.
Backward part_of(const Backward& p, Dtype type, std::int64_t first_plane, std::int64_t n, std::int64_t c) {
  Backward part = p;
  const std::int64_t bytes = first_plane * p.pixels * size_of(type);
  part.grad_y = static_cast<const char*>(p.grad_y) + bytes;
  part.x = static_cast<const char*>(p.x) + bytes;
  part.grad_x = static_cast<char*>(p.grad_x) + bytes;
  if (p.style.weight) part.style.weight += first_plane;
  if (p.style.bias) part.style.bias += first_plane;
  part.offset += first_plane;
  part.deviation += first_plane;
  if (p.grad_weight) part.grad_weight += first_plane;
  if (p.grad_bias) part.grad_bias += first_plane;
  part.n = n;
  part.c = c;
  return part;
}

template <class T>
Status adain_backward(const AdainBackwardParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w, planes = params.n * params.c;
  const std::int64_t bytes = 2 * pixels * size_of(params.type);
  const Backward p{params.grad_y, params.x, params.grad_x, params.n, params.c, pixels,
                   {params.weight, params.bias, 0.0f, params.relu},
                   params.offset, params.rstd, params.grad_weight, params.grad_bias};

  if (params.layout == Layout::nchw && worth_holding(planes, bytes)) {
    const std::int64_t vectors = pixels / Vector<T>::kSize;
    const auto shared = static_cast<std::size_t>(2 * vectors * 16);
    if (bytes <= kHeldEverywhere || shared <= shared_bytes_limit(adain_backward_held<T>)) {
      return each_lot(planes, kMostBlocks, [&](std::int64_t first, std::int64_t count) {
        return launch("adain_backward_held", adain_backward_held<T>, static_cast<unsigned>(count),
                      held_threads(vectors), shared, stream, part_of(p, params.type, first, 1, count));
      });
    }
  }

  const Split s = split_of(params.layout, params.type, params.n, params.c, pixels, 2);
  auto* sums = static_cast<Sums*>(params.workspace);
  if (params.layout == Layout::nchw) {
    return each_lot(planes, s.lot, [&](std::int64_t first, std::int64_t count) {
      const Backward part = part_of(p, params.type, first, 1, count);
      const auto grid = static_cast<unsigned>(count * s.cut.chunks);
      const Status status = launch("adain_backward_sums", gradient_sums_of_runs<T, Scope::plane>, grid, kRunThreads, 0,
                                   stream, part, s.cut, sums);
      if (!status.ok()) return status;
      return launch("adain_backward_gradient", gradient_of_runs<T, Scope::plane>, grid, kRunThreads, 0, stream, part,
                    s.cut, sums);
    });
  }
  return each_lot(params.n, s.lot, [&](std::int64_t first, std::int64_t count) -> Status {
    const Backward part = part_of(p, params.type, first * params.c, count, params.c);
    const std::int64_t blocks = count * s.columns.chunks * s.columns.slabs;
    if (blocks > kMostBlocks) return {cudaErrorInvalidValue, "adain_backward_sums", "adain_backward_cuda (channels)"};
    const auto grid = static_cast<unsigned>(blocks);
    const Status status = launch("adain_backward_sums", gradient_sums_of_columns<T, Scope::plane>, grid,
                                 s.columns.threads, 0, stream, part, s.columns, sums);
    if (!status.ok()) return status;
    return launch("adain_backward_gradient", gradient_of_columns<T, Scope::plane>, grid, s.columns.threads, 0, stream,
                  part, s.columns, sums);
  });
}

}  // namespace

std::int64_t adain_backward_workspace(const AdainBackwardParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  const std::int64_t bytes = 2 * p.h * p.w * size_of(p.type);
  if (p.layout == Layout::nchw && worth_holding(p.n * p.c, bytes) && bytes <= kHeldEverywhere) return 0;
  return split_of(p.layout, p.type, p.n, p.c, p.h * p.w, 2).partials * static_cast<std::int64_t>(sizeof(Sums));
}

Status adain_backward_cuda(const AdainBackwardParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return adain_backward<decltype(zero)>(params, stream); });
}

}  // namespace ldf
