// Products and quotients that are rounded before anything is added to them, for CPU and CUDA alike. nvcc would otherwise
// merge a product into the sum after it, and a value at the edge of a grey level or a histogram's bin would come out on
// one side on a CPU and on the other on a GPU.
#pragma once

#include "common.h"

namespace ldf {

LDF_HD inline float product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

LDF_HD inline double product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

LDF_HD inline float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

}  // namespace ldf
