// The norms' entry points for ctypes; tests/test_cuda_norms.py mirrors the parameter structs.
#include "adain.h"
#include "sample_norm.h"

#define ENTRY(name, Params)                                                                     \
  extern "C" int t_##name(const ldf::Params* p) { return ldf::name##_cuda(*p, nullptr).code; } \
  extern "C" std::int64_t t_##name##_workspace(const ldf::Params* p) { return ldf::name##_workspace(*p); } \
  extern "C" std::int64_t t_##name##_size() { return sizeof(ldf::Params); }

ENTRY(adain, AdainParams)
ENTRY(adain_backward, AdainBackwardParams)
ENTRY(sample_norm, SampleNormParams)
ENTRY(sample_norm_backward, SampleNormBackwardParams)
