// What became of a call that puts work on a GPU. Plain data, no CUDA needed to read it.
#pragma once

namespace ldf {

struct Status {
  int code = 0;             // a cudaError_t; 0 when the work was accepted
  const char* kernel = "";  // the kernel's name, a literal
  const char* call = "";    // the runtime function that refused, a literal

  bool ok() const { return code == 0; }
};

}  // namespace ldf
