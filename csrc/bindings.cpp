// All of pybind11. pyldfusion/kernels.py is the only caller and has checked shapes, sizes and boxes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "entropy.h"

namespace py = pybind11;

namespace {

ldf::Pixel pixel_type(const py::array& a) {
  if (py::isinstance<py::array_t<std::uint8_t>>(a)) return ldf::Pixel::u8;
  if (py::isinstance<py::array_t<float>>(a)) return ldf::Pixel::f32;
  if (py::isinstance<py::array_t<double>>(a)) return ldf::Pixel::f64;
  throw py::type_error("pixels must be uint8, float32 or float64");
}

void check(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}

using Boxes = py::array_t<std::int32_t, py::array::c_style>;

py::array_t<double> entropy(const py::array& pixels, const std::optional<Boxes>& boxes, int threads) {
  ldf::EntropyParams p{};
  p.pixels = pixels.data();
  p.type = pixel_type(pixels);
  if (boxes) {
    check(pixels.ndim() == 2 && boxes->ndim() == 2 && boxes->shape(1) == 4, "expected image [H,W], boxes [N,4]");
    p.count = boxes->shape(0);
    p.stride_y = pixels.strides(0);
    p.stride_x = pixels.strides(1);
    p.boxes = boxes->data();
  } else {
    check(pixels.ndim() == 3, "expected patches [N,H,W]");
    p.count = pixels.shape(0);
    p.height = pixels.shape(1);
    p.width = pixels.shape(2);
    p.stride_n = pixels.strides(0);
    p.stride_y = pixels.strides(1);
    p.stride_x = pixels.strides(2);
  }
  py::array_t<double> bits(p.count);
  p.bits = bits.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::entropy_cpu(p, threads);
  }
  return bits;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels; use them through pyldfusion.kernels.";
  m.def("entropy", &entropy, py::arg("pixels").noconvert(), py::arg("boxes").noconvert(),
        py::arg("threads"));
}
