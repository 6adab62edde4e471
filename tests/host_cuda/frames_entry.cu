// The frame kernels for tests: parameters whose pointers are the host's, and the memory behind them, which goes to
// device memory of just its size and comes back. Works under emulation and, compiled by nvcc, on a GPU.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "frame_input.h"
#include "frame_output.h"
#include "frame_stats.h"

namespace {

struct Buffer {
  void* host;
  std::int64_t bytes;
  std::int64_t field;  // where in the parameters its pointer stands
  std::int64_t first;  // bytes from the start of the memory to what the pointer means
};

struct Histogram16Params {
  ldf::Frame16 frame;
  std::uint32_t* counts;
};

template <class Params, class Kernel>
int run(const void* given, const Buffer* buffers, int count, Kernel kernel) {
  Params params;
  std::memcpy(&params, given, sizeof(params));
  std::map<void*, std::pair<void*, std::int64_t>> on_device;
  int code = 0;
  for (int i = 0; i < count && !code; ++i) {
    const Buffer& b = buffers[i];
    auto& [device, bytes] = on_device[b.host];
    if (!device) {
      bytes = b.bytes;
      code = cudaMalloc(&device, static_cast<std::size_t>(bytes));
      if (!code) code = cudaMemcpy(device, b.host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice);
    }
    void* pointer = static_cast<char*>(device) + b.first;
    std::memcpy(reinterpret_cast<char*>(&params) + b.field, &pointer, sizeof(pointer));
  }
  if (!code) code = kernel(params).code;
  if (!code) code = cudaDeviceSynchronize();
  for (auto& [host, memory] : on_device) {
    if (!code) code = cudaMemcpy(host, memory.first, static_cast<std::size_t>(memory.second), cudaMemcpyDeviceToHost);
    cudaFree(memory.first);
  }
  return code;
}

}  // namespace

#define ENTRY(name, Params, call)                                            \
  int t_##name(const void* params, const Buffer* buffers, int count) {       \
    return run<Params>(params, buffers, count, [](Params& p) { return call; }); \
  }                                                                          \
  std::int64_t t_##name##_size() { return sizeof(Params); }

extern "C" {
ENTRY(frame_to_plane, ldf::FrameToPlaneParams, ldf::frame_to_plane_cuda(p, nullptr))
ENTRY(plane_to_frame, ldf::PlaneToFrameParams, ldf::plane_to_frame_cuda(p, nullptr))
ENTRY(percentiles16, ldf::Percentiles16Params, ldf::percentiles16_cuda(p, nullptr))
ENTRY(histogram16, Histogram16Params, ldf::histogram16_cuda(p.frame, p.counts, nullptr))
}
