// pybind11 for the frame kernels on the CPU. pyldfusion/frame_kernels.py is the only caller, but for the 16-bit ones;
// it has checked types and sizes, and the checks here only keep memory safe should it ever err.
#include "bindings_frames.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "frame_check.h"
#include "frame_input.h"
#include "frame_output.h"
#include "frame_stats.h"
#include "pyramid.h"

namespace py = pybind11;

namespace {

template <class T>
using Contiguous = py::array_t<T, py::array::c_style>;
using MaybeArray = std::optional<py::array>;

void check(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}

void check(const char* problem) {
  if (problem) throw py::value_error(problem);
}

template <class T>
bool holds(const py::array& a) {
  return py::isinstance<py::array_t<T>>(a);
}

ldf::Format format_of(const std::string& name) {
  using ldf::Format;
  constexpr std::pair<const char*, Format> kNames[] = {
      {"grey8", Format::grey8}, {"grey16", Format::grey16}, {"bgr8", Format::bgr8}, {"rgb8", Format::rgb8},
      {"bgr16", Format::bgr16}, {"rgb16", Format::rgb16},   {"nv12", Format::nv12}, {"yuyv", Format::yuyv}};
  for (const auto& [known, format] : kNames) {
    if (name == known) return format;
  }
  throw py::value_error("unknown format " + name);
}

ldf::Frame frame_of(const std::string& name, const py::array& pixels, const MaybeArray& chroma) {
  using ldf::Format;
  ldf::Frame f{};
  f.format = format_of(name);
  const bool nv12 = f.format == Format::nv12;
  check(nv12 ? pixels.ndim() == 2 : pixels.ndim() == 3, "wrong shape of a frame");
  check(ldf::is_16bit(f.format) ? holds<std::uint16_t>(pixels) : holds<std::uint8_t>(pixels), "wrong type of a frame");
  if (!nv12) {
    check(pixels.shape(2) * pixels.itemsize() == ldf::bytes_of(f.format) &&
              (pixels.shape(2) == 1 || pixels.strides(2) == pixels.itemsize()),
          "wrong channels of a frame");
  }
  f.height = pixels.shape(0);
  f.width = pixels.shape(1);
  f.pixels = const_cast<void*>(pixels.data());
  f.stride_y = pixels.strides(0);
  f.stride_x = pixels.strides(1);
  if (nv12) {
    check(chroma && chroma->ndim() == 2 && holds<std::uint8_t>(*chroma) && chroma->shape(0) == f.height / 2 &&
              chroma->shape(1) == f.width && chroma->strides(1) == 1,
          "wrong chroma of a frame");
    f.chroma = const_cast<void*>(chroma->data());
    f.chroma_stride_y = chroma->strides(0);
  }
  return f;
}

ldf::Plane plane_of(const py::array& values) {
  check(values.ndim() == 2, "wrong shape of a plane");
  ldf::Plane p{};
  if (holds<float>(values)) {
    p.type = ldf::PlaneType::f32;
  } else if (holds<std::uint8_t>(values)) {
    p.type = ldf::PlaneType::u8;
  } else {
    check(values.dtype().kind() == 'f' && values.itemsize() == 2, "wrong type of a plane");
    p.type = ldf::PlaneType::f16;
  }
  p.height = values.shape(0);
  p.width = values.shape(1);
  p.values = const_cast<void*>(values.data());
  p.stride_y = values.strides(0);
  p.stride_x = values.strides(1);
  return p;
}

// A byte for every pixel of a plane, packed in rows.
std::uint8_t* bytes_of(const MaybeArray& bytes, const ldf::Plane& plane, std::int64_t* stride_y) {
  if (!bytes) return nullptr;
  check(bytes->ndim() == 2 && holds<std::uint8_t>(*bytes) && bytes->shape(0) == plane.height &&
            bytes->shape(1) == plane.width && (bytes->strides(1) == 1 || plane.width <= 1 || plane.height == 0),
        "wrong shape or layout of a mask");
  *stride_y = bytes->strides(0);
  return const_cast<std::uint8_t*>(static_cast<const std::uint8_t*>(bytes->data()));
}

void frame_to_plane(const std::string& format, const py::array& pixels, const MaybeArray& chroma,
                    const std::optional<Contiguous<double>>& matrix, bool constant, float border_value, float low,
                    float high, const std::optional<Contiguous<float>>& table, const py::array& plane,
                    const MaybeArray& inside, int threads) {
  ldf::FrameToPlaneParams p{};
  p.frame = frame_of(format, pixels, chroma);
  p.plane = plane_of(plane);
  check(plane.writeable(), "the plane is read-only");
  if (matrix) {
    check(matrix->size() == 9, "wrong shape of a matrix");
    for (int i = 0; i < 9; ++i) p.geometry.matrix[i] = matrix->data()[i];
  } else if (p.plane.height == p.frame.height && p.plane.width == p.frame.width) {
    p.geometry = ldf::same_place();
  } else if (p.plane.height && p.plane.width) {
    p.geometry = ldf::resized(p.frame.height, p.frame.width, p.plane.height, p.plane.width);
  } else {
    return;
  }
  p.geometry.border = constant ? ldf::Border::constant : ldf::Border::replicate;
  p.geometry.border_value = border_value;
  p.gain.low = low;
  p.gain.high = high;
  if (table) {
    check(table->size() == (ldf::is_16bit(p.frame.format) ? 65536 : 256), "wrong size of a table");
    p.gain.table = table->data();
  }
  p.inside = bytes_of(inside, p.plane, &p.inside_stride_y);
  check(ldf::problem(p));
  py::gil_scoped_release unlocked;
  ldf::frame_to_plane_cpu(p, threads);
}

void plane_to_frame(const py::array& fused, const std::string& vis_format, const py::array& vis,
                    const MaybeArray& vis_chroma, bool full_range, const MaybeArray& cover,
                    const std::string& out_format, const py::array& out, const MaybeArray& out_chroma, int threads) {
  ldf::PlaneToFrameParams p{};
  p.fused = plane_of(fused);
  p.vis = frame_of(vis_format, vis, vis_chroma);
  p.range = full_range ? ldf::Range::full : ldf::Range::video;
  p.cover = bytes_of(cover, p.fused, &p.cover_stride_y);
  p.out = frame_of(out_format, out, out_chroma);
  check(out.writeable() && (!out_chroma || out_chroma->writeable()), "the output is read-only");
  check(ldf::problem(p));
  py::gil_scoped_release unlocked;
  ldf::plane_to_frame_cpu(p, threads);
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

std::pair<double, double> percentiles16(const py::array_t<std::uint16_t>& frame, double low, double high) {
  const ldf::Frame16 f = frame16(frame);
  check(f.height > 0 && f.width > 0 && low >= 0 && low <= 100 && high >= 0 && high <= 100,
        "percentiles16: an empty frame, or percentages outside 0..100");
  double range[2];
  {
    py::gil_scoped_release unlocked;
    ldf::percentiles16_cpu(f, low, high, range);
  }
  return {range[0], range[1]};
}

ldf::PyramidLook look_of(const py::dict& given) {
  using Levels = std::array<float, ldf::kPyramidLevels>;
  ldf::PyramidLook look{};
  const auto edge = given["edge"].cast<Levels>(), gain = given["gain"].cast<Levels>();
  std::copy(edge.begin(), edge.end(), look.edge);
  std::copy(gain.begin(), gain.end(), look.gain);
  const auto choice = given["choice"].cast<std::array<std::int32_t, ldf::kPyramidLevels>>();
  std::copy(choice.begin(), choice.end(), look.choice);
  const std::pair<const char*, float*> kFields[] = {
      {"strong", &look.strong},         {"coring", &look.coring},       {"floor_gain", &look.floor_gain},
      {"quiet", &look.quiet},           {"least_noise", &look.least_noise}, {"coding_noise", &look.coding_noise},
      {"least_contrast", &look.least_contrast}, {"hot", &look.hot},     {"hot_lift", &look.hot_lift},
      {"hot_room", &look.hot_room},     {"hot_keep", &look.hot_keep},   {"mean", &look.mean},
      {"deviation", &look.deviation},
      {"knee", &look.knee}};
  for (const auto& [name, value] : kFields) *value = given[name].cast<float>();
  return look;
}

void pyramid(const py::array& ir, const py::array& vis, const py::array& fused, const py::dict& look,
             py::array_t<double>& workspace, int threads) {
  ldf::PyramidParams p{};
  p.ir = plane_of(ir);
  p.vis = plane_of(vis);
  p.fused = plane_of(fused);
  for (const ldf::Plane* plane : {&p.ir, &p.vis}) {
    check(plane->height == p.fused.height && plane->width == p.fused.width, "pyramid: sizes differ");
  }
  check(p.fused.height > 0 && p.fused.width > 0, "pyramid: empty planes");
  check(workspace.ndim() == 1 && (workspace.flags() & py::array::c_style) &&
            workspace.size() >= ldf::pyramid_workspace(p.fused.height, p.fused.width),
        "pyramid: the workspace is too small");
  check(fused.writeable() && workspace.writeable(), "pyramid: the output is read-only");
  p.look = look_of(look);
  p.workspace = workspace.mutable_data();
  py::gil_scoped_release unlocked;
  ldf::pyramid_cpu(p, threads);
}

}  // namespace

void bind_frames(py::module_& m) {
  m.def("frame_to_plane", &frame_to_plane, py::arg("format"), py::arg("pixels"), py::arg("chroma"),
        py::arg("matrix").noconvert(), py::arg("constant"), py::arg("border_value"), py::arg("low"), py::arg("high"),
        py::arg("table").noconvert(), py::arg("plane"), py::arg("inside"), py::arg("threads"));
  m.def("plane_to_frame", &plane_to_frame, py::arg("fused"), py::arg("vis_format"), py::arg("vis"),
        py::arg("vis_chroma"), py::arg("full_range"), py::arg("cover"), py::arg("out_format"), py::arg("out"),
        py::arg("out_chroma"), py::arg("threads"));
  m.def("histogram16", &histogram16, py::arg("frame").noconvert());
  m.def("percentiles16", &percentiles16, py::arg("frame").noconvert(), py::arg("low"), py::arg("high"));
  m.def("scale16", &scale16, py::arg("frame").noconvert(), py::arg("low"), py::arg("high"), py::arg("threads"));
  m.def("pyramid_workspace", &ldf::pyramid_workspace, py::arg("height"), py::arg("width"));
  m.def("pyramid", &pyramid, py::arg("ir"), py::arg("vis"), py::arg("fused"), py::arg("look"),
        py::arg("workspace").noconvert(), py::arg("threads"));
  m.def("add_luma", &add_luma, py::arg("vis"), py::arg("delta").noconvert(), py::arg("out"), py::arg("threads"));
}
