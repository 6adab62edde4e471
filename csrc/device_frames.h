// The bindings of the frame kernels; pyldfusion/cuda.py says what they mean. Needs pybind11.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>

#include "device_call.h"
#include "frame_check.h"
#include "frame_input.h"
#include "frame_output.h"
#include "frame_stats.h"

namespace ldf {

inline void refuse(const char* function, const char* problem) {
  if (problem) raise("InputError", std::string(function) + ": " + problem);
}

// The formats of cuda.py name no depth but where there is one only: 8 bits where the kernels know two.
inline Format format_of(const std::string& name, bool deep) {
  if (name == "grey") return deep ? Format::grey16 : Format::grey8;
  if (name == "bgr") return deep ? Format::bgr16 : Format::bgr8;
  if (name == "rgb") return deep ? Format::rgb16 : Format::rgb8;
  if (name == "nv12" && !deep) return Format::nv12;
  if (name == "yuyv" && !deep) return Format::yuyv;
  raise("InputError", "format is \"" + name + "\"; expected grey, bgr, rgb, or with 8 bits nv12 or yuyv");
}

// The arrays of a frame: one, or for nv12 (Y, UV).
struct FrameArrays {
  const DeviceArray* pixels;
  const DeviceArray* chroma;  // nv12 in two parts, else null
  Frame frame;
};

inline Frame nv12_of(const char* name, const DeviceArray& luma, const DeviceArray* chroma) {
  Frame f{};
  f.format = Format::nv12;
  expect_type(name, luma, {kU8});
  expect_axes(name, luma, 2, chroma ? "Y [H,W] and UV [H/2,W/2,2] for nv12" : "[H*3/2,W] for nv12");
  f.height = chroma ? luma.shape[0] : luma.shape[0] / 3 * 2;
  f.width = luma.shape[1];
  f.pixels = luma.data;
  f.stride_y = luma.strides[0];
  f.stride_x = luma.shape[1] > 1 ? luma.strides[1] : 1;
  if (!chroma) {
    if (luma.shape[0] % 3) raise("InputError", std::string(name) + " has shape " + text(luma.shape) + "; expected [H*3/2,W] for nv12, U and V below Y");
    f.chroma = static_cast<char*>(f.pixels) + f.height * f.stride_y;
    f.chroma_stride_y = f.stride_y;
    return f;
  }
  expect_type("the UV of nv12", *chroma, {kU8});
  if (chroma->shape.size() == 2) {
    expect_shape("the UV of nv12", *chroma, {f.height / 2, f.width}, "a row of U and V for two rows of Y");
    expect_strides("the UV of nv12", *chroma, {chroma->strides[0], 1}, "pixels packed in their row");
  } else {
    expect_shape("the UV of nv12", *chroma, {f.height / 2, f.width / 2, 2}, "half of Y each way, U and V");
    expect_strides("the UV of nv12", *chroma, {chroma->strides[0], 2, 1}, "pixels packed in their row");
  }
  f.chroma = chroma->data;
  f.chroma_stride_y = chroma->strides[0];
  return f;
}

inline Frame frame_of(const char* name, const std::string& format, const DeviceArray& pixels) {
  expect_type(name, pixels, {kU8, kU16});
  Frame f{};
  f.format = format_of(format, pixels.type == kU16);
  const std::int64_t channels = is_grey(f.format) ? 1 : f.format == Format::yuyv ? 2 : 3;
  const bool flat = pixels.shape.size() == 2 && channels == 1;
  if (!flat && (pixels.shape.size() != 3 || pixels.shape[2] != channels))
    raise("InputError", std::string(name) + " has shape " + text(pixels.shape) + "; expected " +
                            (channels == 1 ? "[H,W] or [H,W,1]" : "[H,W," + std::to_string(channels) + "]") + " for " + format);
  const std::int64_t bytes = pixels.type.bytes();
  if (channels > 1 && pixels.size() > 0 && pixels.strides[2] != 1)
    raise("InputError", std::string(name) + " has strides " + text(pixels.strides) + "; expected the channels of a pixel side by side");
  f.height = pixels.shape[0];
  f.width = pixels.shape[1];
  f.pixels = pixels.data;
  f.stride_y = pixels.strides[0] * bytes;
  f.stride_x = pixels.shape[1] > 1 ? pixels.strides[1] * bytes : bytes_of(f.format);
  return f;
}

inline FrameArrays frame_of(Call& call, const char* name, const py::object& object, const std::string& format,
                            bool write) {
  const auto take = [&](const py::object& part) { return write ? &call.written(name, part) : &call.input(name, part); };
  FrameArrays arrays{};
  if (format == "nv12") {
    const bool parts = py::isinstance<py::tuple>(object) && py::len(object) == 2;
    arrays.pixels = take(parts ? py::object(object[py::int_(0)]) : object);
    if (parts) arrays.chroma = take(object[py::int_(1)]);
    arrays.frame = nv12_of(name, *arrays.pixels, arrays.chroma);
  } else {
    arrays.pixels = take(object);
    arrays.frame = frame_of(name, format, *arrays.pixels);
  }
  return arrays;
}

// What decides on the device when a frame may come in parts.
inline py::object first_part(const py::object& frame) {
  return py::isinstance<py::tuple>(frame) && py::len(frame) > 0 ? py::object(frame[py::int_(0)]) : frame;
}

inline Plane plane_of(const char* name, const DeviceArray& values) {
  expect_type(name, values, {kF32, kF16, kBf16, kU8});
  expect_axes(name, values, 2, "[H,W]");
  Plane p{};
  p.type = values.type == kF32   ? PlaneType::f32
           : values.type == kF16 ? PlaneType::f16
           : values.type == kBf16 ? PlaneType::bf16
                                  : PlaneType::u8;
  p.height = values.shape[0];
  p.width = values.shape[1];
  p.values = values.data;
  p.stride_y = values.strides[0] * values.type.bytes();
  p.stride_x = values.strides[1] * values.type.bytes();
  return p;
}

inline void expect_apart(const char* name, const DeviceArray& out, const char* other, const FrameArrays& frame) {
  expect_apart(name, out, other, *frame.pixels);
  if (frame.chroma) expect_apart(name, out, other, *frame.chroma);
}

inline std::int64_t counts_of(Format format) { return is_16bit(format) ? 65536 : 256; }

// size: height and width of the plane. gain: (low, high); or arrays: the range [2], or the table [256 or 65536].
inline py::object frame_to_plane(const py::object& frame, const std::string& format,
                                 const std::optional<std::array<std::int64_t, 2>>& size,
                                 const std::optional<std::array<double, 9>>& matrix, bool constant, float border_value,
                                 const std::optional<std::array<float, 2>>& low_high, const py::object& gain,
                                 bool full_range, const std::string& dtype, bool mask, const py::object& out,
                                 const py::object& stream) {
  const py::object first = first_part(frame);
  Call call(stream, {{"frame", &first}, {"out", &out}});
  const FrameArrays source = frame_of(call, "frame", frame, format, false);
  FrameToPlaneParams p{};
  p.frame = source.frame;
  const Shape shape = size ? Shape{(*size)[0], (*size)[1]} : Shape{p.frame.height, p.frame.width};
  if (out.is_none()) {
    p.plane = plane_of("out", call.output("out", out, element_type(dtype), shape));
  } else {
    const DeviceArray& plane = call.written("out", out);
    p.plane = plane_of("out", plane);
    expect_shape("out", plane, shape, "height and width of the plane");
    expect_apart("out", plane, "the frame", source);
    call.result(out);
  }
  if (mask) {
    const DeviceArray& inside = call.output("mask", py::none(), kU8, shape);
    p.inside = static_cast<std::uint8_t*>(inside.data);
    p.inside_stride_y = shape[1];
  }
  if (matrix) {
    for (int i = 0; i < 9; ++i) p.geometry.matrix[i] = (*matrix)[static_cast<std::size_t>(i)];
  } else if (p.plane.height == p.frame.height && p.plane.width == p.frame.width) {
    p.geometry = same_place();
  } else if (p.plane.height > 0 && p.plane.width > 0) {
    p.geometry = resized(p.frame.height, p.frame.width, p.plane.height, p.plane.width);
  } else {
    p.geometry = same_place();
  }
  p.geometry.border = constant ? Border::constant : Border::replicate;
  p.geometry.border_value = border_value;
  p.gain = full_scale(p.frame.format, full_range ? Range::full : Range::video);
  if (low_high) {
    p.gain.low = (*low_high)[0];
    p.gain.high = (*low_high)[1];
  }
  if (!gain.is_none()) {
    const std::int64_t counts = counts_of(p.frame.format);
    if (py::isinstance<Host<float>>(gain)) {
      p.gain.table = anywhere<float>(call, "gain", gain, kF32, {counts});
    } else {
      const DeviceArray& numbers = call.input("gain", gain);
      expect_type("gain", numbers, {kF32});
      const bool range = numbers.shape == Shape{2};
      if (!range) expect_shape("gain", numbers, {counts}, "a value for each count, or [2] for a range");
      expect_strides("gain", numbers, {1}, "C order");
      (range ? p.gain.range : p.gain.table) = static_cast<const float*>(numbers.data);
    }
  }
  refuse("frame_to_plane", problem_on_gpu(p));
  return call.run([&](Stream on) { return frame_to_plane_cuda(p, on); });
}

inline Shape shape_of(const std::string& format, std::int64_t height, std::int64_t width) {
  if (format == "nv12") return {height / 2 * 3, width};
  if (format == "grey") return {height, width};
  return {height, width, 3};
}

inline py::object plane_to_frame(const py::object& fused, const py::object& vis, const std::string& format,
                                 const std::string& to, bool full_range, const py::object& cover,
                                 const py::object& out, const py::object& stream) {
  Call call(stream, {{"fused", &fused}});
  const DeviceArray& plane = call.input("fused", fused);
  const FrameArrays source = frame_of(call, "vis", vis, format, false);
  PlaneToFrameParams p{};
  p.fused = plane_of("fused", plane);
  p.vis = source.frame;
  p.range = full_range ? Range::full : Range::video;
  if (const DeviceArray* share = call.optional_input("cover", cover)) {
    expect_type("cover", *share, {kU8});
    expect_shape("cover", *share, plane.shape, "the size of fused");
    expect_strides("cover", *share, {share->strides[0], 1}, "pixels packed in their row");
    p.cover = static_cast<const std::uint8_t*>(share->data);
    p.cover_stride_y = share->strides[0];
  }
  const bool deep = is_16bit(p.vis.format);
  format_of(to, deep);  // refuses nv12 of 16 bits
  FrameArrays target{};
  if (out.is_none()) {
    if (to == "nv12" && (p.vis.height % 2 || p.vis.width % 2))
      raise("InputError", "to is \"nv12\" and vis is " + std::to_string(p.vis.width) + "x" + std::to_string(p.vis.height) +
                              " (width x height); nv12 needs even sides: crop it");
    target.pixels = &call.output("out", out, deep ? kU16 : kU8, shape_of(to, p.vis.height, p.vis.width));
    target.frame = to == "nv12" ? nv12_of("out", *target.pixels, nullptr) : frame_of("out", to, *target.pixels);
  } else {
    target = frame_of(call, "out", out, to, true);
    call.result(out);
  }
  p.out = target.frame;
  const bool in_place = p.out.format == p.vis.format && p.out.pixels == p.vis.pixels && p.out.chroma == p.vis.chroma &&
                        p.out.stride_y == p.vis.stride_y && p.out.stride_x == p.vis.stride_x &&
                        p.out.chroma_stride_y == p.vis.chroma_stride_y;
  for (const DeviceArray* part : {target.pixels, target.chroma}) {
    if (!part) continue;
    expect_apart("out", *part, "fused", plane);
    if (!in_place) expect_apart("out", *part, "vis", source);
  }
  refuse("plane_to_frame", problem_on_gpu(p));
  return call.run([&](Stream on) { return plane_to_frame_cuda(p, on); });
}

inline Frame16 frame16_of(const DeviceArray& frame) {
  expect_type("frame", frame, {kU16});
  expect_axes("frame", frame, 2, "[H,W]");
  return {frame.data, frame.shape[0], frame.shape[1], 2 * frame.strides[0], 2 * frame.strides[1]};
}

inline py::object histogram16(const py::object& frame, const py::object& out, const py::object& stream) {
  Call call(stream, {{"frame", &frame}});
  const Frame16 f = frame16_of(call.input("frame", frame));
  refuse("histogram16", problem_on_gpu(f));
  auto* counts = static_cast<std::uint32_t*>(call.output("out", out, kU32, {kCounts16}).data);
  return call.run([&](Stream on) { return histogram16_cuda(f, counts, on); });
}

inline py::object percentiles16(const py::object& frame, double low, double high, const py::object& out,
                                const py::object& stream) {
  Call call(stream, {{"frame", &frame}});
  Percentiles16Params p{};
  p.frame = frame16_of(call.input("frame", frame));
  p.low = low;
  p.high = high;
  p.counts = static_cast<std::uint32_t*>(call.workspace(kCounts16 * 4));
  if (out.is_none()) {
    p.range = static_cast<float*>(call.output("out", out, kF32, {2}).data);
  } else {
    const DeviceArray& given = call.written("out", out);
    expect_type("out", given, {kF32, kF64});
    expect_shape("out", given, {2}, "both percentiles");
    expect_strides("out", given, {1}, "C order");
    if (given.type == kF64) p.exact = static_cast<double*>(given.data);
    else p.range = static_cast<float*>(given.data);
    call.result(out);
  }
  refuse("percentiles16", problem_on_gpu(p));
  return call.run([&](Stream on) { return percentiles16_cuda(p, on); });
}

inline void bind_frames(py::module_& m) {
  m.def("frame_to_plane", &frame_to_plane, py::arg("frame"), py::arg("format"), py::arg("size"), py::arg("matrix"),
        py::arg("constant"), py::arg("border_value"), py::arg("low_high"), py::arg("gain"), py::arg("full_range"),
        py::arg("dtype"), py::arg("mask"), py::arg("out"), py::arg("stream"));
  m.def("plane_to_frame", &plane_to_frame, py::arg("fused"), py::arg("vis"), py::arg("format"), py::arg("to"),
        py::arg("full_range"), py::arg("cover"), py::arg("out"), py::arg("stream"));
  m.def("histogram16", &histogram16, py::arg("frame"), py::arg("out"), py::arg("stream"));
  m.def("percentiles16", &percentiles16, py::arg("frame"), py::arg("low"), py::arg("high"), py::arg("out"),
        py::arg("stream"));
}

}  // namespace ldf
