// What pyldfusion/cuda.py reaches of the CUDA kernels.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels; use them through pyldfusion.cuda.";
  m.attr("version") = PYLDFUSION_CUDA_VERSION;  // of the toolkit that compiled them
}
