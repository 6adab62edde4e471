#include "sample_norm.h"

#include "norm_forward.cuh"

namespace ldf {
namespace {

// A group is a sample. Its moments are a run's in either layout; the map, which differs between channels, is laid on in
// tiles of planes or of slabs.
struct Split {
  Cut samples, planes;
  Columns columns;
  Plan plan;
  std::int64_t progress, found, partials;  // bytes of the workspace's parts, multiples of 16

  Split(Layout layout, Dtype type, std::int64_t n, std::int64_t c, std::int64_t pixels)
      : samples(cut_of(c * pixels, type, kBatch)),
        planes(cut_of(pixels, type, kBatch)),
        columns(columns_of(c, pixels, type, kBatch)),
        plan(plan_of(n, c * pixels * size_of(type), samples.tiles,
                     layout == Layout::nchw ? c * planes.tiles : std::int64_t{columns.slabs} * columns.tiles)),
        progress(progress_bytes(n)),
        found(ratio_up(n, 2) * 16),
        partials(ratio_up(n * samples.tiles, 2) * 16) {}
  std::int64_t bytes() const { return progress + found + partials; }
};

template <class T>
Status sample_norm(const SampleNormParams& params, Stream stream) {
  const std::int64_t pixels = params.h * params.w;
  const Split s(params.layout, params.type, params.n, params.c, pixels);
  char* workspace = static_cast<char*>(params.workspace);
  const Forward p{params.x, nullptr, params.y, params.c, pixels,
                  {params.gamma, params.beta, static_cast<float>(params.eps), params.relu},
                  params.offset, params.std, reinterpret_cast<Partial*>(workspace + s.progress + s.found),
                  reinterpret_cast<Found*>(workspace + s.progress)};
  if (params.n > kMostGroups) return {cudaErrorInvalidValue, "sample_norm", "sample_norm_cuda (samples)"};
  if (params.layout == Layout::nchw) {
    return launch_two_steps("sample_norm", RunForward<T, Scope::sample>{{p, s.samples}, s.planes}, s.plan, workspace,
                            stream);
  }
  if (whole_slabs<T>(s.columns, {params.x, params.y})) {
    return launch_two_steps("sample_norm", ColumnForward<T, Scope::sample, true>{{p, s.samples}, s.columns}, s.plan,
                            workspace, stream);
  }
  return launch_two_steps("sample_norm", ColumnForward<T, Scope::sample, false>{{p, s.samples}, s.columns}, s.plan,
                          workspace, stream);
}

}  // namespace

std::int64_t sample_norm_workspace(const SampleNormParams& p) {
  if (p.n == 0 || p.c == 0) return 0;
  return Split(p.layout, p.type, p.n, p.c, p.h * p.w).bytes();
}

Status sample_norm_cuda(const SampleNormParams& params, Stream stream) {
  if (params.n == 0 || params.c == 0) return {};
  return with_type(params.type, [&](auto zero) { return sample_norm<decltype(zero)>(params, stream); });
}

}  // namespace ldf
