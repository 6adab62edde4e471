#include "sample_norm.h"

#include "launch.cuh"
#include "norm_forward.cuh"

namespace ldf {
namespace {

// Samples normalised together, and how the blocks share them: as runs for the moments, in either layout, since a
// sample is one run; as planes or columns for the map, which differs between channels.
struct Split {
  std::int64_t lot;
  Cut samples, planes;
  Columns columns;
};

Split split_of(Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels) {
  Split s{};
  s.lot = lot_of(n, c * pixels * size_of(type));
  s.samples = cut_of(s.lot, c * pixels, type);
  s.planes = cut_of(s.lot * c, pixels, type);
  s.columns = columns_of(s.lot, c, pixels, type);
  return s;
}

template <class T>
Status sample_norm(const SampleNormParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w, size = params.c * pixels;
  const bool nchw = params.layout == Layout::nchw;
  const Split s = split_of(params.type, params.n, params.c, pixels);
  auto* partials = static_cast<Partial*>(params.workspace);

  return each_lot(params.n, s.lot, [&](std::int64_t first, std::int64_t count) -> Status {
    const auto* x = static_cast<const T*>(params.x) + first * size;
    const Forward part{x, nullptr, static_cast<T*>(params.y) + first * size, count, params.c, pixels,
                       {params.gamma, params.beta, static_cast<float>(params.eps), params.relu},
                       params.offset ? params.offset + first : nullptr, params.std ? params.std + first : nullptr,
                       partials, s.samples};
    const std::int64_t blocks =
        nchw ? count * params.c * s.planes.chunks : count * s.columns.chunks * s.columns.slabs;
    if (blocks > kMostBlocks) return {cudaErrorInvalidValue, "sample_norm_apply", "sample_norm_cuda (channels)"};
    const auto grid = static_cast<unsigned>(blocks);

    const Status status = launch("sample_norm_moments", run_moments<T>, static_cast<unsigned>(count * s.samples.chunks),
                                 kRunThreads, 0, stream, x, size, s.samples, partials);
    if (!status.ok()) return status;
    if (nchw) {
      return launch("sample_norm_apply", apply_runs<T, Scope::sample>, grid, kRunThreads, 0, stream, part, s.planes);
    }
    return launch("sample_norm_apply", apply_columns<T, Scope::sample>, grid, s.columns.threads, 0, stream, part,
                  s.columns);
  });
}

}  // namespace

std::int64_t sample_norm_workspace(const SampleNormParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  const Split s = split_of(p.type, p.n, p.c, p.h * p.w);
  return s.lot * s.samples.chunks * static_cast<std::int64_t>(sizeof(Partial));
}

Status sample_norm_cuda(const SampleNormParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return sample_norm<decltype(zero)>(params, stream); });
}

}  // namespace ldf
