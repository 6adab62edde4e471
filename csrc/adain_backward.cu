#include "adain.h"
#include "adain_split.cuh"
#include "norm_backward.cuh"

namespace ldf {
namespace {

// NCHW, a block for each plane, of which its threads hold x and grad_y in registers: one step.
template <class T>
__global__ void __launch_bounds__(kThreads) adain_backward_whole(const Backward p, const Cut cut) {
  __shared__ Sums shared_sums;
  const std::int64_t plane = blockIdx.x;
  const RunPair<T> pair(static_cast<const T*>(p.x) + plane * p.pixels, static_cast<const T*>(p.grad_y) + plane * p.pixels,
                        cut, 0, blockDim.x);
  const Found found = kept(p, plane);
  const float first = to_float(pair.x[0]);
  const Sums all = sums_of(pair, map_of<Scope::plane>(first, found, p.style, plane), found, found.deviation, p.style.relu);
  if (threadIdx.x == 0) {
    if (p.grad_weight) p.grad_weight[plane] = all.gx;
    if (p.grad_bias) p.grad_bias[plane] = all.g;
    shared_sums = all;
  }
  __syncthreads();
  apply(pair, static_cast<T*>(p.grad_x) + plane * p.pixels, gradient_map<Scope::plane>(p, first, found, plane, shared_sums),
        p.style.relu);
}

template <class T>
Status adain_backward(const AdainBackwardParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w, planes = params.n * params.c;
  const std::int64_t bytes = pixels * size_of(params.type);
  Backward p{params.grad_y, params.x, params.grad_x, params.c, pixels, {params.weight, params.bias, 0.0f, params.relu},
             params.offset, params.rstd, params.grad_weight, params.grad_bias, nullptr, nullptr};
  if (planes > kMostGroups) return {cudaErrorInvalidValue, "adain_backward", "adain_backward_cuda (planes)"};
  if (held_whole(params.layout, planes, bytes, kHalfBatch)) {
    return launch("adain_backward_whole", adain_backward_whole<T>, static_cast<unsigned>(planes),
                  threads_for(ratio_up(bytes, 16), kHalfBatch), 0, stream, p, cut_of(pixels, params.type, kHalfBatch));
  }
  const Split s(params.layout, params.type, params.n, params.c, pixels, 2);
  char* workspace = static_cast<char*>(params.workspace);
  p.found = reinterpret_cast<Sums*>(workspace + s.progress);
  p.partials = reinterpret_cast<Sums*>(workspace + s.progress + s.found);
  if (params.layout == Layout::nchw) {
    return launch_two_steps("adain_backward", RunBackward<T, Scope::plane>{p, s.cut}, s.plan, workspace, stream);
  }
  if (whole_slabs<T>(s.columns, {params.x, params.grad_y, params.grad_x})) {
    return launch_two_steps("adain_backward", ColumnBackward<T, Scope::plane, true>{p, s.columns}, s.plan, workspace,
                            stream);
  }
  return launch_two_steps("adain_backward", ColumnBackward<T, Scope::plane, false>{p, s.columns}, s.plan, workspace,
                          stream);
}

}  // namespace

std::int64_t adain_backward_workspace(const AdainBackwardParams& p) {
  const std::int64_t pixels = p.h * p.w;
  if (p.n == 0 || p.c == 0 || held_whole(p.layout, p.n * p.c, pixels * size_of(p.type), kHalfBatch)) return 0;
  return Split(p.layout, p.type, p.n, p.c, pixels, 2).bytes();
}

Status adain_backward_cuda(const AdainBackwardParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return adain_backward<decltype(zero)>(params, stream); });
}

}  // namespace ldf
