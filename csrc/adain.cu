#include "adain.h"

#include "adain_split.cuh"
#include "norm_forward.cuh"

namespace ldf {
namespace {

// NCHW, a block for each plane, which its threads hold in registers: one step.
template <class T>
__global__ void __launch_bounds__(kThreads) adain_whole(const Forward p, const Cut cut) {
  __shared__ AdainMap shared_map;
  const std::int64_t plane = blockIdx.x;
  const T* x = static_cast<const T*>(p.x) + plane * p.pixels;
  const RunTile<T> tile(x, cut, 0, blockDim.x);
  Vector<T> v[kBatch];
  tile.load(x, true, v);
  const float first = to_float(x[0]);
  const Moments all = moments_of(x, tile, v, first);
  if (threadIdx.x == 0) {
    const Found found{all.mean, plane_rstd(all, p.style.eps)};
    if (p.offset) p.offset[plane] = found.offset;
    if (p.deviation) p.deviation[plane] = found.deviation;
    shared_map = map_of<Scope::plane>(first, found, p.style, plane);
  }
  __syncthreads();
  apply(p, x, plane, tile, v, shared_map);
}

template <class T>
Status adain(const AdainParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w, planes = params.n * params.c;
  const std::int64_t bytes = pixels * size_of(params.type);
  Forward p{params.x, params.residual, params.y, params.c, pixels,
            {params.weight, params.bias, static_cast<float>(params.eps), params.relu},
            params.offset, params.rstd, nullptr, nullptr};
  if (planes > kMostGroups) return {cudaErrorInvalidValue, "adain", "adain_cuda (planes)"};
  if (held_whole(params.layout, planes, bytes, kBatch)) {
    return launch("adain_whole", adain_whole<T>, static_cast<unsigned>(planes), threads_for(ratio_up(bytes, 16), kBatch), 0,
                  stream, p, cut_of(pixels, params.type, kBatch));
  }
  const Split s(params.layout, params.type, params.n, params.c, pixels, 1);
  char* workspace = static_cast<char*>(params.workspace);
  p.found = reinterpret_cast<Found*>(workspace + s.progress);
  p.partials = reinterpret_cast<Partial*>(workspace + s.progress + s.found);
  if (params.layout == Layout::nchw) {
    return launch_two_steps("adain", RunForward<T, Scope::plane>{{p, s.cut}, s.cut}, s.plan, workspace, stream);
  }
  if (whole_slabs<T>(s.columns, {params.x, params.residual, params.y})) {
    return launch_two_steps("adain", ColumnForward<T, Scope::plane, true>{{p, s.columns}, s.columns}, s.plan, workspace,
                            stream);
  }
  return launch_two_steps("adain", ColumnForward<T, Scope::plane, false>{{p, s.columns}, s.columns}, s.plan, workspace,
                          stream);
}

}  // namespace

std::int64_t adain_workspace(const AdainParams& p) {
  const std::int64_t pixels = p.h * p.w;
  if (p.n == 0 || p.c == 0 || held_whole(p.layout, p.n * p.c, pixels * size_of(p.type), kBatch)) return 0;
  return Split(p.layout, p.type, p.n, p.c, pixels, 1).bytes();
}

Status adain_cuda(const AdainParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return adain<decltype(zero)>(params, stream); });
}

}  // namespace ldf
