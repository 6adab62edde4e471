// The module pyldfusion._cuda: the CUDA kernels for arrays in GPU memory. pyldfusion/cuda.py is its only caller and says
// what the functions mean. Everything is checked here, by device_call.h's rules; errors are pyldfusion.errors'.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>

#include "adain.h"
#include "device_call.h"
#include "device_frames.h"
#include "device_stream.h"
#include "entropy.h"
#include "sample_norm.h"

namespace py = pybind11;

namespace {

using namespace ldf;

// ---- norms

Dtype dtype_of(const char* name, const DeviceArray& array) {
  expect_type(name, array, {kF32, kF16, kBf16});
  return array.type == kF32 ? Dtype::f32 : array.type == kF16 ? Dtype::f16 : Dtype::bf16;
}

// The tensor that decides on type, layout and sizes of a norm's parameters.
template <class Params>
void describe(Params& p, const char* name, const DeviceArray& x) {
  p.type = dtype_of(name, x);
  expect_axes(name, x, 4, "[N,C,H,W]");
  p.layout = expect_dense(name, x);
  p.n = x.shape[0];
  p.c = x.shape[1];
  p.h = x.shape[2];
  p.w = x.shape[3];
  if (p.n * p.c > 0 && x.size() == 0)
    raise("InputError", std::string(name) + " has planes without pixels: shape " + text(x.shape) + "; height and width must be at least 1");
}

constexpr const char* kLikeX = "the layout of x";

// Another tensor of the same type, shape and layout.
template <class Params>
const void* alike(const Params& p, const char* name, const DeviceArray& array, const DeviceArray& x) {
  expect_type(name, array, {x.type});
  expect_shape(name, array, x.shape, "the shape of x");
  expect_strides(name, array, strides_of(p.layout, x.shape), kLikeX);
  return array.data;
}

const float* numbers(const char* name, const DeviceArray* array, const Shape& shape, const char* why) {
  if (!array) return nullptr;
  expect_type(name, *array, {kF32});
  expect_shape(name, *array, shape, why);
  expect_strides(name, *array, c_order(shape), "C order");
  return static_cast<const float*>(array->data);
}

float* floats(const DeviceArray& array) { return static_cast<float*>(array.data); }

void expect_eps(double eps) {
  if (!(eps > 0 && std::isfinite(eps))) raise("InputError", "eps is " + std::to_string(eps) + "; expected a finite number above 0");
}

constexpr const char* kPerPlane = "one number for each plane of x";
constexpr const char* kPerChannel = "one number for each channel of x";
constexpr const char* kPerSample = "one number for each sample of x";

py::object adain(const py::object& x, const py::object& weight, const py::object& bias, const py::object& residual,
                 double eps, bool relu, bool save, const py::object& out, const py::object& offset,
                 const py::object& rstd, const py::object& stream) {
  Call call(stream, {{"x", &x}, {"weight", &weight}, {"bias", &bias}, {"residual", &residual}, {"out", &out}});
  const DeviceArray& in = call.input("x", x);
  AdainParams p{};
  describe(p, "x", in);
  const Shape planes{p.n, p.c};
  p.x = in.data;
  p.weight = numbers("weight", call.optional_input("weight", weight), planes, kPerPlane);
  p.bias = numbers("bias", call.optional_input("bias", bias), planes, kPerPlane);
  expect_eps(p.eps = eps);
  p.relu = relu;
  const DeviceArray* added = call.optional_input("residual", residual);
  if (added) {
    if (relu) raise("InputError", "relu and residual cannot both be asked for");
    p.residual = alike(p, "residual", *added, in);
  }
  const DeviceArray& y = call.output("out", out, in.type, in.shape, strides_of(p.layout, in.shape), kLikeX);
  expect_apart("out", y, "x", in);
  p.y = y.data;
  if (added && added->data != y.data) expect_apart("out", y, "residual", *added);
  if (save) {
    p.offset = floats(call.output("offset", offset, kF32, planes));
    p.rstd = floats(call.output("rstd", rstd, kF32, planes));
  }
  p.workspace = call.workspace(adain_workspace(p));
  return call.run([&](Stream on) { return adain_cuda(p, on); });
}

py::object adain_backward(const py::object& grad_y, const py::object& x, const py::object& weight,
                          const py::object& bias, bool relu, const py::object& offset, const py::object& rstd,
                          const py::object& grad_x, const py::object& grad_weight, const py::object& grad_bias,
                          const py::object& stream) {
  Call call(stream, {{"x", &x}, {"grad_y", &grad_y}, {"weight", &weight}, {"bias", &bias}, {"grad_x", &grad_x}});
  const DeviceArray& in = call.input("x", x);
  const DeviceArray& grad = call.input("grad_y", grad_y);
  AdainBackwardParams p{};
  describe(p, "x", in);
  const Shape planes{p.n, p.c};
  p.x = in.data;
  p.grad_y = alike(p, "grad_y", grad, in);
  p.weight = numbers("weight", call.optional_input("weight", weight), planes, kPerPlane);
  p.bias = numbers("bias", call.optional_input("bias", bias), planes, kPerPlane);
  p.relu = relu;
  p.offset = numbers("offset", &call.input("offset", offset), planes, kPerPlane);
  p.rstd = numbers("rstd", &call.input("rstd", rstd), planes, kPerPlane);
  const DeviceArray& out = call.output("grad_x", grad_x, in.type, in.shape, strides_of(p.layout, in.shape), kLikeX);
  expect_apart("grad_x", out, "x", in);
  expect_apart("grad_x", out, "grad_y", grad);
  p.grad_x = out.data;
  if (p.weight) {
    p.grad_weight = floats(call.output("grad_weight", grad_weight, kF32, planes));
    p.grad_bias = floats(call.output("grad_bias", grad_bias, kF32, planes));
  }
  p.workspace = call.workspace(adain_backward_workspace(p));
  return call.run([&](Stream on) { return adain_backward_cuda(p, on); });
}

py::object sample_norm(const py::object& x, const py::object& gamma, const py::object& beta, double eps, bool relu,
                       bool save, const py::object& out, const py::object& offset, const py::object& deviation,
                       const py::object& stream) {
  Call call(stream, {{"x", &x}, {"gamma", &gamma}, {"beta", &beta}, {"out", &out}});
  const DeviceArray& in = call.input("x", x);
  SampleNormParams p{};
  describe(p, "x", in);
  p.x = in.data;
  p.gamma = numbers("gamma", &call.input("gamma", gamma), {p.c}, kPerChannel);
  p.beta = numbers("beta", &call.input("beta", beta), {p.c}, kPerChannel);
  p.relu = relu;
  expect_eps(p.eps = eps);
  const DeviceArray& y = call.output("out", out, in.type, in.shape, strides_of(p.layout, in.shape), kLikeX);
  expect_apart("out", y, "x", in);
  p.y = y.data;
  if (save) {
    p.offset = floats(call.output("offset", offset, kF32, {p.n}));
    p.std = floats(call.output("std", deviation, kF32, {p.n}));
  }
  p.workspace = call.workspace(sample_norm_workspace(p));
  return call.run([&](Stream on) { return sample_norm_cuda(p, on); });
}

py::object sample_norm_backward(const py::object& grad_y, const py::object& x, const py::object& gamma,
                                const py::object& beta, double eps, bool relu, const py::object& offset,
                                const py::object& deviation, const py::object& grad_x, const py::object& grad_gamma,
                                const py::object& grad_beta, const py::object& stream) {
  Call call(stream, {{"x", &x}, {"grad_y", &grad_y}, {"gamma", &gamma}, {"beta", &beta}, {"grad_x", &grad_x}});
  const DeviceArray& in = call.input("x", x);
  const DeviceArray& grad = call.input("grad_y", grad_y);
  SampleNormBackwardParams p{};
  describe(p, "x", in);
  p.x = in.data;
  p.grad_y = alike(p, "grad_y", grad, in);
  p.gamma = numbers("gamma", &call.input("gamma", gamma), {p.c}, kPerChannel);
  p.beta = numbers("beta", &call.input("beta", beta), {p.c}, kPerChannel);
  expect_eps(p.eps = eps);
  p.relu = relu;
  p.offset = numbers("offset", &call.input("offset", offset), {p.n}, kPerSample);
  p.std = numbers("std", &call.input("std", deviation), {p.n}, kPerSample);
  const DeviceArray& out = call.output("grad_x", grad_x, in.type, in.shape, strides_of(p.layout, in.shape), kLikeX);
  expect_apart("grad_x", out, "x", in);
  expect_apart("grad_x", out, "grad_y", grad);
  p.grad_x = out.data;
  p.grad_gamma = floats(call.output("grad_gamma", grad_gamma, kF32, {p.c}));
  p.grad_beta = floats(call.output("grad_beta", grad_beta, kF32, {p.c}));
  p.workspace = call.workspace(sample_norm_backward_workspace(p));
  return call.run([&](Stream on) { return sample_norm_backward_cuda(p, on); });
}

// ---- entropy

Pixel pixel_of(const char* name, const DeviceArray& array) {
  expect_type(name, array, {kU8, kF16, kBf16, kF32, kF64});
  return array.type == kU8    ? Pixel::u8
         : array.type == kF16 ? Pixel::f16
         : array.type == kBf16 ? Pixel::bf16
         : array.type == kF32 ? Pixel::f32
                              : Pixel::f64;
}

py::object entropy(const py::object& pixels, const py::object& boxes, std::int64_t count, const py::object& out,
                   const py::object& stream) {
  Call call(stream, {{"pixels", &pixels}, {"out", &out}});
  const DeviceArray& in = call.input("pixels", pixels);
  EntropyParams p{};
  p.type = pixel_of("pixels", in);
  p.pixels = in.data;
  if (boxes.is_none()) {
    expect_axes("patches", in, 3, "[N,H,W]");
    if (in.shape[0] > 0 && in.size() == 0)
      raise("InputError", "patches are empty: shape " + text(in.shape) + "; height and width must be at least 1");
    p.count = in.shape[0];
    p.stride_n = in.strides[0] * in.type.bytes();
  } else {
    expect_axes("image", in, 2, "[H,W]");
    p.count = count;
    p.boxes = anywhere<std::int32_t>(call, "boxes", boxes, kI32, {count, 4});
  }
  const std::size_t rows = in.shape.size() - 2;
  p.height = in.shape[rows];
  p.width = in.shape[rows + 1];
  p.stride_y = in.strides[rows] * in.type.bytes();
  p.stride_x = in.strides[rows + 1] * in.type.bytes();
  const DeviceArray& bits = call.output("out", out, kF64, {p.count});
  expect_apart("out", bits, "the pixels", in);
  p.bits = static_cast<double*>(bits.data);
  void* workspace = p.count ? call.workspace(entropy_workspace_bytes(p)) : nullptr;
  return call.run([&](Stream on) { return p.count ? entropy_cuda(p, workspace, on) : Status{}; });
}

py::object entropy_affine(const py::object& planes, const py::object& boxes, const py::object& maps,
                          std::int64_t patches, std::int32_t size, const py::object& out, const py::object& stream) {
  Call call(stream, {{"planes", &planes}, {"out", &out}});
  const DeviceArray& in = call.input("planes", planes);
  expect_type("planes", in, {kF16, kBf16, kF32});
  expect_axes("planes", in, 3, "[P,H,W]");
  if (size < 1 || size > 1 << 24)
    raise("InputError", "size is " + std::to_string(size) + "; expected a whole number of pixels from 1 to 16777216");
  EntropyAffineParams p{};
  p.planes = in.data;
  p.type = pixel_of("planes", in);
  p.count = in.shape[0];
  p.stride_p = in.strides[0] * in.type.bytes();
  p.stride_y = in.strides[1] * in.type.bytes();
  p.stride_x = in.strides[2] * in.type.bytes();
  p.patches = patches;
  p.boxes = anywhere<std::int32_t>(call, "boxes", boxes, kI32, {patches, 3});
  p.maps = anywhere<float>(call, "maps", maps, kF32, {patches, 2, 3});
  p.size = size;
  const DeviceArray& bits = call.output("out", out, kF64, {patches, p.count});
  expect_apart("out", bits, "planes", in);
  p.bits = static_cast<double*>(bits.data);
  const bool work = patches > 0 && p.count > 0;
  void* workspace = work ? call.workspace(entropy_affine_workspace_bytes(p)) : nullptr;
  return call.run([&](Stream on) { return work ? entropy_affine_cuda(p, workspace, on) : Status{}; });
}

// ---- arrays

DeviceArray wrap(std::uintptr_t pointer, const std::string& dtype, const Shape& shape,
                 const std::optional<Shape>& strides, int device, bool read_only, const py::object& stream,
                 const py::object& owner, bool trusted) {
  DeviceArray array;
  array.type = element_type(dtype);
  for (const std::int64_t side : shape)
    if (side < 0) raise("InputError", "shape is " + text(shape) + "; expected no negative sizes");
  array.shape = shape;
  array.strides = strides.value_or(c_order(shape));
  if (array.strides.size() != shape.size())
    raise("InputError", "strides are " + text(array.strides) + " for shape " + text(shape) + "; expected one for each axis");
  array.data = reinterpret_cast<void*>(pointer);
  array.device = device;
  if (array.size() > 0 && !trusted) check_pointer("pointer", array.data, &array.device);
  array.read_only = read_only;
  array.stream = stream_of(stream);
  array.owner = keep(owner);
  return array;
}

py::object import_array(const py::object& array, const py::object& stream) {
  Call call(stream, {{"array", &array}});
  return call.adopt("array", array);
}

py::object to_device(const py::array& host, const std::string& dtype, int device, const py::object& stream) {
  Call call(stream, device);
  const Shape shape(host.shape(), host.shape() + host.ndim());
  const DeviceArray& made = call.output("out", py::none(), element_type(dtype), shape);
  if (host.nbytes() != made.bytes() || !(host.flags() & py::array::c_style)) raise("InputError", "expected an array in C order");
  call.expect_no_capture();
  return call.run([&](Stream on) -> Status {
    if (made.bytes() == 0) return {};
    const cudaError_t code = cudaMemcpyAsync(made.data, host.data(), static_cast<std::size_t>(made.bytes()), cudaMemcpyHostToDevice, on);
    if (code != cudaSuccess) return {static_cast<int>(code), "copy to the GPU", "cudaMemcpyAsync"};
    return {static_cast<int>(wait_if_pinned(host.data(), on)), "copy to the GPU", "copy from pinned memory"};
  });
}

void to_host(const py::object& array, py::array& host, const py::object& stream) {
  Call call(stream, {{"array", &array}});
  const DeviceArray& from = call.input("array", array);
  expect_strides("array", from, c_order(from.shape), "C order");
  if (host.nbytes() != from.bytes() || !(host.flags() & py::array::c_style)) raise("InputError", "expected an array in C order");
  void* to = host.mutable_data();
  call.run([&](Stream on) -> Status {
    if (from.bytes() == 0) return {};
    const cudaError_t copied = cudaMemcpyAsync(to, from.data, static_cast<std::size_t>(from.bytes()), cudaMemcpyDeviceToHost, on);
    if (copied != cudaSuccess) return {static_cast<int>(copied), "copy from the GPU", "cudaMemcpyAsync"};
    return {static_cast<int>(cudaStreamSynchronize(on)), "copy from the GPU", "cudaStreamSynchronize"};
  });
}

int device_count() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  return count;
}

py::tuple tuple_of(const Shape& shape) {
  py::tuple all(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) all[i] = shape[i];
  return all;
}

std::string describe_array(const DeviceArray& array) {
  return "DeviceArray(" + array.type.name() + " " + text(array.shape) + " on GPU " + std::to_string(array.device) +
         (array.read_only ? ", read-only)" : ")");
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels; use them through pyldfusion.cuda.";
#ifdef PYLDFUSION_CUDA_VERSION
  m.attr("version") = PYLDFUSION_CUDA_VERSION;  // of the toolkit that compiled the kernels
#else
  m.attr("version") = "emulated";
#endif
  m.def("device_count", &device_count);

  py::class_<DeviceArray>(m, "DeviceArray",
                          "An array in GPU memory. torch.from_dlpack and cupy.from_dlpack take it without a copy.\n\n"
                          "DeviceArray(pointer, dtype, shape, strides=None, device=0, *, read_only=False, stream=None, "
                          "owner=None, trusted=False)\nwraps memory of yours: strides in elements; stream: where it is "
                          "worked on, None when you keep\nthe order; owner: kept alive with it; trusted: the driver is "
                          "not asked what the pointer is.",
                          py::module_local())
      .def(py::init(&wrap), py::arg("pointer"), py::arg("dtype"), py::arg("shape"), py::arg("strides") = py::none(),
           py::arg("device") = 0, py::kw_only(), py::arg("read_only") = false, py::arg("stream") = py::none(),
           py::arg("owner") = py::none(), py::arg("trusted") = false)
      .def_property_readonly("shape", [](const DeviceArray& a) { return tuple_of(a.shape); })
      .def_property_readonly("strides", [](const DeviceArray& a) { return tuple_of(a.strides); }, "In elements.")
      .def_property_readonly("dtype", [](const DeviceArray& a) { return a.type.name(); }, "The name, \"float32\".")
      .def_property_readonly("ndim", [](const DeviceArray& a) { return a.shape.size(); })
      .def_property_readonly("size", &DeviceArray::size)
      .def_property_readonly("nbytes", &DeviceArray::bytes)
      .def_property_readonly("device", [](const DeviceArray& a) { return a.device; }, "The GPU's number.")
      .def_property_readonly("pointer", [](const DeviceArray& a) { return reinterpret_cast<std::uintptr_t>(a.data); })
      .def_property_readonly("read_only", [](const DeviceArray& a) { return a.read_only; })
      .def_property_readonly(
          "stream",
          [](const DeviceArray& a) { return a.stream ? py::object(py::int_(handle_of(*a.stream))) : py::object(py::none()); },
          "Handle of the stream that holds the work on it; None when its user keeps the order.")
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
           py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__", [](const DeviceArray& a) { return py::make_tuple(static_cast<int>(kDeviceType), a.device); })
      .def_property_readonly("__cuda_array_interface__", &to_interface)
      .def("__repr__", &describe_array);

  m.def("import_array", &import_array, py::arg("array"), py::arg("stream"));
  m.def("to_device", &to_device, py::arg("host"), py::arg("dtype"), py::arg("device"), py::arg("stream"));
  m.def("to_host", &to_host, py::arg("array"), py::arg("host"), py::arg("stream"));

  m.def("adain", &adain, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("residual"), py::arg("eps"),
        py::arg("relu"), py::arg("save"), py::arg("out"), py::arg("offset"), py::arg("rstd"), py::arg("stream"));
  m.def("adain_backward", &adain_backward, py::arg("grad_y"), py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("relu"), py::arg("offset"), py::arg("rstd"), py::arg("grad_x"), py::arg("grad_weight"),
        py::arg("grad_bias"), py::arg("stream"));
  m.def("sample_norm", &sample_norm, py::arg("x"), py::arg("gamma"), py::arg("beta"), py::arg("eps"), py::arg("relu"),
        py::arg("save"), py::arg("out"), py::arg("offset"), py::arg("std"), py::arg("stream"));
  m.def("sample_norm_backward", &sample_norm_backward, py::arg("grad_y"), py::arg("x"), py::arg("gamma"),
        py::arg("beta"), py::arg("eps"), py::arg("relu"), py::arg("offset"), py::arg("std"), py::arg("grad_x"),
        py::arg("grad_gamma"), py::arg("grad_beta"), py::arg("stream"));
  bind_frames(m);
  bind_streams(m);
  m.def("entropy", &entropy, py::arg("pixels"), py::arg("boxes"), py::arg("count"), py::arg("out"), py::arg("stream"));
  m.def("entropy_affine", &entropy_affine, py::arg("planes"), py::arg("boxes"), py::arg("maps"), py::arg("patches"),
        py::arg("size"), py::arg("out"), py::arg("stream"));
}
