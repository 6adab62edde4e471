#include "norm_backward.cuh"
#include "sample_norm.h"

namespace ldf {
namespace {

constexpr int kChannelThreads = 128;

// A group is a sample, its tiles are those of its planes or slabs.
struct Split {
  Cut planes;       // NCHW
  Columns columns;  // NHWC
  std::int64_t width, tiles;  // channels of a slab (NHWC), tiles of a plane or slab
  Plan plan;
  std::int64_t progress, found, partials;  // bytes of the workspace's parts, multiples of 16

  Split(Layout layout, Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels)
      : planes(cut_of(pixels, type, kHalfBatch)), columns(columns_of(c, pixels, type, kHalfBatch)) {
    const bool nchw = layout == Layout::nchw;
    width = nchw ? 1 : columns.lanes * (16 / size_of(type));
    tiles = nchw ? planes.tiles : columns.tiles;
    const std::int64_t all = tiles * (nchw ? c : columns.slabs);
    plan = plan_of(std::max<std::int64_t>(n, 1), 2 * c * pixels * size_of(type), all, all);
    progress = progress_bytes(n);
    found = ratio_up(n, 2) * 16;
    partials = ratio_up(n * all * width, 2) * 16;
  }
  std::int64_t bytes() const { return progress + found + partials; }
};

// grad_gamma and grad_beta: one block a channel adds up the sums of all samples and tiles. Partial results lie as
// [N, slabs, tiles, width]; planes are slabs of one channel.
__global__ void __launch_bounds__(kChannelThreads) channel_sums(const Sums* sums, std::int64_t samples, std::int64_t slabs,
                                                                std::int64_t tiles, unsigned width, float* grad_gamma,
                                                                float* grad_beta) {
  __shared__ Sums scratch[kChannelThreads / 32];
  const unsigned slab = blockIdx.x / width, within = blockIdx.x % width;
  Sums own[1] = {};
  for (std::int64_t n = 0; n < samples; ++n) {
    const Sums* of_slab = sums + (n * slabs + slab) * tiles * width + within;
    for (std::int64_t k = threadIdx.x; k < tiles; k += kChannelThreads) own[0] = combine(own[0], of_slab[k * width]);
  }
  const Sums all = block_fold(own, 1, scratch);
  if (threadIdx.x == 0) {
    grad_gamma[blockIdx.x] = all.gx;
    grad_beta[blockIdx.x] = all.g;
  }
}

template <class T>
Status gradient(const SampleNormBackwardParams& params, const Split& s, Sums* partials, Stream stream) {
  char* workspace = static_cast<char*>(params.workspace);
  const Backward p{params.grad_y, params.x, params.grad_x, params.c, params.h * params.w,
                   {params.gamma, params.beta, static_cast<float>(params.eps), params.relu}, params.offset, params.std,
                   nullptr, nullptr, partials, reinterpret_cast<Sums*>(workspace + s.progress)};
  constexpr const char* kName = "sample_norm_backward";
  if (params.layout == Layout::nchw) {
    return launch_two_steps(kName, RunBackward<T, Scope::sample>{p, s.planes}, s.plan, workspace, stream);
  }
  if (whole_slabs<T>(s.columns, {params.x, params.grad_y, params.grad_x})) {
    return launch_two_steps(kName, ColumnBackward<T, Scope::sample, true>{p, s.columns}, s.plan, workspace, stream);
  }
  return launch_two_steps(kName, ColumnBackward<T, Scope::sample, false>{p, s.columns}, s.plan, workspace, stream);
}

}  // namespace

std::int64_t sample_norm_backward_workspace(const SampleNormBackwardParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  return Split(p.layout, p.type, p.n, p.c, p.h * p.w).bytes();
}

Status sample_norm_backward_cuda(const SampleNormBackwardParams& params, Stream stream) {
  if (params.c == 0) return {};
  const Split s(params.layout, params.type, params.n, params.c, params.h * params.w);
  auto* partials = reinterpret_cast<Sums*>(static_cast<char*>(params.workspace) + s.progress + s.found);
  if (params.n > kMostGroups || params.c > kMostGroups)
    return {cudaErrorInvalidValue, "sample_norm_backward", "sample_norm_backward_cuda (samples or channels)"};
  if (params.n > 0) {
    const Status status =
        with_type(params.type, [&](auto zero) { return gradient<decltype(zero)>(params, s, partials, stream); });
    if (!status.ok()) return status;
  }
  const std::int64_t slabs = params.layout == Layout::nchw ? params.c : s.columns.slabs;
  return launch("sample_norm_backward_channels", channel_sums, static_cast<unsigned>(params.c), kChannelThreads, 0,
                stream, static_cast<const Sums*>(partials), params.n, slabs, s.tiles, static_cast<unsigned>(s.width),
                params.grad_gamma, params.grad_beta);
}

}  // namespace ldf
