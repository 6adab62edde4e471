// All of pybind11. pyldfusion/kernels.py is the only caller; it has checked types, shapes, sizes and boxes, and the
// checks here only keep memory safe should it ever err.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "adain.h"
#include "entropy.h"
#include "frame_output.h"
#include "frame_stats.h"

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

ldf::Frame16 frame16(const py::array_t<std::uint16_t>& frame) {
  check(frame.ndim() == 2, "expected a frame [H,W]");
  return {frame.data(), frame.shape(0), frame.shape(1), frame.strides(0), frame.strides(1)};
}

Contiguous<std::int64_t> histogram16(const py::array_t<std::uint16_t>& frame) {
  const ldf::Frame16 f = frame16(frame);
  Contiguous<std::int64_t> counts(65536);
  std::int64_t* to = counts.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::histogram16_cpu(f, to);
  }
  return counts;
}

Contiguous<std::uint8_t> scale16(const py::array_t<std::uint16_t>& frame, double low, double high, int threads) {
  const ldf::Frame16 f = frame16(frame);
  Contiguous<std::uint8_t> out({f.height, f.width});
  std::uint8_t* to = out.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ldf::scale16_cpu(f, low, high, to, threads);
  }
  return out;
}

void add_luma(const py::array& vis, const Contiguous<std::int16_t>& delta, py::array& out, int threads) {
  const auto pixels = delta.size();
  check(delta.ndim() == 2 && (vis.size() == pixels || vis.size() == 3 * pixels) && out.size() == vis.size() &&
            (vis.flags() & out.flags() & py::array::c_style),
        "add_luma: wrong shapes or layout");
  check(out.dtype().equal(vis.dtype()) && (holds<std::uint16_t>(vis) || holds<float>(vis) || holds<double>(vis)),
        "add_luma: wrong types");
  ldf::AddLumaParams p{};
  p.vis = vis.data();
  p.depth = holds<std::uint16_t>(vis) ? ldf::Depth::u16 : holds<float>(vis) ? ldf::Depth::f32 : ldf::Depth::f64;
  p.height = delta.shape(0);
  p.width = delta.shape(1);
  p.channels = vis.size() == pixels ? 1 : 3;
  p.delta = delta.data();
  p.out = out.mutable_data();
  py::gil_scoped_release unlocked;
  ldf::add_luma_cpu(p, threads);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels; use them through pyldfusion.kernels.";
  m.def("entropy", &entropy, py::arg("pixels"), py::arg("boxes").noconvert(), py::arg("threads"));
  m.def("entropy_affine", &entropy_affine, py::arg("planes").noconvert(), py::arg("boxes").noconvert(),
        py::arg("maps").noconvert(), py::arg("size"), py::arg("threads"));
  m.def("adain", &adain, py::arg("x").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
        py::arg("eps"), py::arg("threads"));
  m.def("histogram16", &histogram16, py::arg("frame").noconvert());
  m.def("scale16", &scale16, py::arg("frame").noconvert(), py::arg("low"), py::arg("high"), py::arg("threads"));
  m.def("add_luma", &add_luma, py::arg("vis"), py::arg("delta").noconvert(), py::arg("out"), py::arg("threads"));
}
