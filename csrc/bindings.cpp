// All of pybind11, with bindings_frames.cpp. pyldfusion/kernels.py is the only caller; it has checked types, shapes,
// sizes and boxes, and the checks here only keep memory safe should it ever err.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "adain.h"
#include "bindings_frames.h"
#include "entropy.h"

namespace py = pybind11;

namespace {

template <class T>
using Contiguous = py::array_t<T, py::array::c_style>;

void check(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}

template <class T>
bool holds(const py::array& a) {
  return py::isinstance<py::array_t<T>>(a);
}

Contiguous<double> entropy(const py::array& pixels, const std::optional<Contiguous<std::int32_t>>& boxes,
                           int threads) {
  check(holds<std::uint8_t>(pixels) || holds<float>(pixels) || holds<double>(pixels), "entropy: wrong pixel type");
  ldf::EntropyParams p{};
  p.pixels = pixels.data();
  p.type = holds<std::uint8_t>(pixels) ? ldf::Pixel::u8 : holds<float>(pixels) ? ldf::Pixel::f32 : ldf::Pixel::f64;
  if (boxes) {
    check(pixels.ndim() == 2 && boxes->ndim() == 2 && boxes->shape(1) == 4, "entropy: wrong shapes");
    p.count = boxes->shape(0);
    p.stride_y = pixels.strides(0);
    p.stride_x = pixels.strides(1);
    p.boxes = boxes->data();
  } else {
    check(pixels.ndim() == 3, "entropy: wrong shape");
    p.count = pixels.shape(0);
    p.height = pixels.shape(1);
    p.width = pixels.shape(2);
    p.stride_n = pixels.strides(0);
    p.stride_y = pixels.strides(1);
    p.stride_x = pixels.strides(2);
  }
  Contiguous<double> bits(p.count);
  p.bits = bits.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::entropy_cpu(p, threads);
  }
  return bits;
}

Contiguous<double> entropy_affine(const py::array_t<float>& planes, const Contiguous<std::int32_t>& boxes,
                                  const Contiguous<float>& maps, std::int32_t size, int threads) {
  check(planes.ndim() == 3 && boxes.ndim() == 2 && boxes.shape(1) == 3 && maps.size() == 2 * boxes.size() && size > 0,
        "entropy_affine: wrong shapes");
  ldf::EntropyAffineParams p{};
  p.planes = planes.data();
  p.type = ldf::Pixel::f32;
  p.count = planes.shape(0);
  p.stride_p = planes.strides(0);
  p.stride_y = planes.strides(1);
  p.stride_x = planes.strides(2);
  p.patches = boxes.shape(0);
  p.boxes = boxes.data();
  p.maps = maps.data();
  p.size = size;
  Contiguous<double> bits({p.patches, p.count});
  p.bits = bits.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::entropy_affine_cpu(p, threads);
  }
  return bits;
}

Contiguous<float> adain(const py::array_t<float>& x, const Contiguous<float>& weight, const Contiguous<float>& bias,
                        double eps, int threads) {
  constexpr py::ssize_t kSize = sizeof(float);
  check(x.ndim() == 4 && weight.size() == x.shape(0) * x.shape(1) && bias.size() == weight.size(),
        "adain: wrong shapes");
  for (int axis = 0; axis < 4; ++axis) check(x.strides(axis) % kSize == 0, "adain: strides must be whole floats");
  Contiguous<float> y({x.shape(0), x.shape(1), x.shape(2), x.shape(3)});
  ldf::AdainCpuParams p{};
  p.x = x.data();
  p.n = x.shape(0);
  p.c = x.shape(1);
  p.h = x.shape(2);
  p.w = x.shape(3);
  p.stride_n = x.strides(0) / kSize;
  p.stride_c = x.strides(1) / kSize;
  p.stride_h = x.strides(2) / kSize;
  p.stride_w = x.strides(3) / kSize;
  p.weight = weight.data();
  p.bias = bias.data();
  p.eps = eps;
  p.y = y.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::adain_cpu(p, threads);
  }
  return y;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels; use them through pyldfusion.kernels.";
  m.def("entropy", &entropy, py::arg("pixels"), py::arg("boxes").noconvert(), py::arg("threads"));
  m.def("entropy_affine", &entropy_affine, py::arg("planes").noconvert(), py::arg("boxes").noconvert(),
        py::arg("maps").noconvert(), py::arg("size"), py::arg("threads"));
  m.def("adain", &adain, py::arg("x").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
        py::arg("eps"), py::arg("threads"));
  bind_frames(m);
}
