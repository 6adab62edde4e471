#include "launch.cuh"
#include "norm_backward.cuh"
#include "sample_norm.h"

namespace ldf {
namespace {

constexpr int kChannelThreads = 128;

// Samples whose gradients are taken together, and how the blocks share them.
struct Split {
  std::int64_t lot;
  Cut planes;       // NCHW
  Columns columns;  // NHWC
  std::int64_t chunks;

  Split(Layout layout, Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels)
      : lot(lot_of(n, 2 * c * pixels * size_of(type))),
        planes(cut_of(lot * c, pixels, type)),
        columns(columns_of(lot, c, pixels, type)),
        chunks(layout == Layout::nchw ? planes.chunks : columns.chunks) {}
};

// grad_gamma and grad_beta: one block a channel adds up the sums of all samples and chunks, whose index grows by
// `stride_n`, `stride_c`, `stride_k` from one sample, channel, chunk to the next.
struct Strides {
  std::int64_t n, c, k;
};
__global__ void __launch_bounds__(kChannelThreads) channel_sums(const Sums* sums, Strides stride, unsigned samples,
                                                                unsigned chunks, float* grad_gamma, float* grad_beta) {
  __shared__ Sums scratch[kChannelThreads / 32];
  Sums own[1] = {};
  for (unsigned i = threadIdx.x; i < samples * chunks; i += kChannelThreads) {
    own[0] = combine(own[0], sums[i / chunks * stride.n + blockIdx.x * stride.c + i % chunks * stride.k]);
  }
  block_fold(own, 1, scratch);
  if (threadIdx.x == 0) {
    grad_gamma[blockIdx.x] = own[0].gx;
    grad_beta[blockIdx.x] = own[0].g;
  }
}

template <class T>
Status gradient(const SampleNormBackwardParams& params, const Split& s, Stream stream) {
  const std::int64_t pixels = params.h * params.w, size = params.c * pixels;
  const bool nchw = params.layout == Layout::nchw;
  return each_lot(params.n, s.lot, [&](std::int64_t first, std::int64_t count) {
    const Backward part{static_cast<const T*>(params.grad_y) + first * size,
                        static_cast<const T*>(params.x) + first * size,
                        static_cast<T*>(params.grad_x) + first * size,
                        count, params.c, pixels,
                        {params.gamma, params.beta, static_cast<float>(params.eps), params.relu},
                        params.offset + first, params.std + first, nullptr, nullptr};
    Sums* sums = static_cast<Sums*>(params.workspace) + first * params.c * s.chunks;
    const auto grid = static_cast<unsigned>(nchw ? count * params.c * s.chunks : count * s.chunks * s.columns.slabs);
    constexpr const char* kSumsName = "sample_norm_backward_sums";
    constexpr const char* kGradientName = "sample_norm_backward_gradient";
    if (nchw) {
      const Status status = launch(kSumsName, gradient_sums_of_runs<T, Scope::sample>, grid, kRunThreads, 0, stream,
                                   part, s.planes, sums);
      if (!status.ok()) return status;
      return launch(kGradientName, gradient_of_runs<T, Scope::sample>, grid, kRunThreads, 0, stream, part, s.planes,
                    sums);
    }
    const Status status = launch(kSumsName, gradient_sums_of_columns<T, Scope::sample>, grid, s.columns.threads, 0, stream,
                                 part, s.columns, sums);
    if (!status.ok()) return status;
    return launch(kGradientName, gradient_of_columns<T, Scope::sample>, grid, s.columns.threads, 0, stream, part,
                  s.columns, sums);
  });
}

}  // namespace

std::int64_t sample_norm_backward_workspace(const SampleNormBackwardParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  const Split s(p.layout, p.type, p.n, p.c, p.h * p.w);
  return p.n * p.c * s.chunks * static_cast<std::int64_t>(sizeof(Sums));
}

Status sample_norm_backward_cuda(const SampleNormBackwardParams& params, Stream stream) {
  if (params.c == 0) return {};
  std::int64_t chunks = 1;
  if (params.n > 0) {
    const Split s(params.layout, params.type, params.n, params.c, params.h * params.w);
    chunks = s.chunks;
    // Blocks of a launch and partial results of the whole are counted in 32 bits.
    if (s.lot * params.c * chunks > kMostBlocks || params.n * chunks > kMostBlocks) {
      return {cudaErrorInvalidValue, "sample_norm_backward_sums", "sample_norm_backward_cuda (channels)"};
    }
    const Status status = with_type(
        params.type, [&](auto zero) { return gradient<decltype(zero)>(params, s, stream); });
    if (!status.ok()) return status;
  }
  const Strides stride = params.layout == Layout::nchw ? Strides{params.c * chunks, chunks, 1}
                                                       : Strides{params.c * chunks, 1, params.c};
  return launch("sample_norm_backward_channels", channel_sums, static_cast<unsigned>(params.c), kChannelThreads, 0,
                stream, static_cast<const Sums*>(params.workspace), stride, static_cast<unsigned>(params.n),
                static_cast<unsigned>(chunks), params.grad_gamma, params.grad_beta);
}

}  // namespace ldf
