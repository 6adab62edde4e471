"""What csrc/cuda_bindings.cpp offers, in builds with CUDA. Unchecked: call these through pyldfusion.cuda."""

version: str
