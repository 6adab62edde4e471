#pragma once

#include <pybind11/pybind11.h>

// Adds the frame kernels to the module; see bindings_frames.cpp.
void bind_frames(pybind11::module_& m);
