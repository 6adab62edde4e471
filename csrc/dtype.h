// The element types of the network's tensors and how they are laid out: one place that reads them into float, writes
// them from float, and moves them 16 bytes at a time. Half types are plain bits here, so that no CUDA header is needed.
#pragma once

#include <cstdint>
#include <cstring>

#include "common.h"

#ifdef __CUDA_ARCH__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ldf {

enum class Dtype : std::int32_t { f32, f16, bf16 };

// Dense tensors of shape [N, C, H, W] in memory: planes behind each other, or channels beside each other (torch's
// channels_last).
enum class Layout : std::int32_t { nchw, nhwc };

struct Half {  // IEEE 754 binary16
  std::uint16_t bits;
};
struct Bfloat16 {  // the upper half of a float
  std::uint16_t bits;
};

constexpr std::int64_t size_of(Dtype type) { return type == Dtype::f32 ? 4 : 2; }

namespace detail {

LDF_HD inline float as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

LDF_HD inline std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace detail

LDF_HD inline float to_float(float value) { return value; }

LDF_HD inline float to_float(Bfloat16 value) { return detail::as_float(std::uint32_t{value.bits} << 16); }

LDF_HD inline float to_float(Half value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const std::uint32_t sign = std::uint32_t{value.bits & 0x8000u} << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return detail::as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);  // inf, NaN
  // Read as a float the exponent is 112 too low; the product puts that right and normalises subnormals on the way.
  const float scaled = detail::as_float(magnitude << 13) * 0x1p112f;
  return detail::as_float(sign | detail::as_bits(scaled));
#endif
}

// Nearest, ties to even; too large becomes infinite.
template <class T>
LDF_HD T from_float(float value);

template <>
LDF_HD inline float from_float<float>(float value) {
  return value;
}

template <>
LDF_HD inline Bfloat16 from_float<Bfloat16>(float value) {
#ifdef __CUDA_ARCH__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const std::uint32_t bits = detail::as_bits(value);
  if (value != value) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};  // stays NaN
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#endif
}

template <>
LDF_HD inline Half from_float<Half>(float value) {
#ifdef __CUDA_ARCH__
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const std::uint32_t bits = detail::as_bits(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // 65520 and more: infinite
  if (magnitude < 0x38800000u) {
    // Subnormal: the last bit is worth 2^-24, which beside 0.5 is a float's last bit too, so the sum does the rounding.
    const std::uint32_t rounded = detail::as_bits(detail::as_float(magnitude) + 0.5f) - 0x3f000000u;
    return {static_cast<std::uint16_t>(sign | rounded)};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23);
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
#endif
}

// 16 bytes of neighbours, as they lie in memory. Words, so that pairs of 16-bit elements share a register.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  std::uint32_t words[4];
};

template <class T>
LDF_HD inline T element(const Vector<T>& vector, int i) {
  return {static_cast<std::uint16_t>(vector.words[i / 2] >> 16 * (i % 2))};
}
template <>
LDF_HD inline float element(const Vector<float>& vector, int i) {
  return detail::as_float(vector.words[i]);
}

// Of a vector that was cleared before.
template <class T>
LDF_HD inline void set_element(Vector<T>& vector, int i, T value) {
  vector.words[i / 2] |= std::uint32_t{value.bits} << 16 * (i % 2);
}
template <>
LDF_HD inline void set_element(Vector<float>& vector, int i, float value) {
  vector.words[i] = detail::as_bits(value);
}

template <class T>
LDF_HD inline void unpack(const Vector<T>& vector, float (&values)[Vector<T>::kSize]) {
  for (int i = 0; i < Vector<T>::kSize; ++i) values[i] = to_float(element(vector, i));
}

// Two neighbours as a word; GPUs round both in one instruction.
template <class T>
LDF_HD inline std::uint32_t pair(float low, float high, T) {
  return from_float<T>(low).bits | std::uint32_t{from_float<T>(high).bits} << 16;
}
#ifdef __CUDA_ARCH__
__device__ inline std::uint32_t pair(float low, float high, Half) {
  const __half2 both = __floats2half2_rn(low, high);
  return __half_as_ushort(__low2half(both)) | std::uint32_t{__half_as_ushort(__high2half(both))} << 16;
}
__device__ inline std::uint32_t pair(float low, float high, Bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return __bfloat16_as_ushort(__low2bfloat16(both)) | std::uint32_t{__bfloat16_as_ushort(__high2bfloat16(both))} << 16;
}
#endif

LDF_HD inline Vector<float> pack(const float (&v)[4], float) {
  return {{detail::as_bits(v[0]), detail::as_bits(v[1]), detail::as_bits(v[2]), detail::as_bits(v[3])}};
}
template <class T>
LDF_HD inline Vector<T> pack(const float (&v)[8], T) {
  Vector<T> vector;
  for (int i = 0; i < 4; ++i) vector.words[i] = pair(v[2 * i], v[2 * i + 1], T{});
  return vector;
}

// How many elements lie before the next address that a Vector may be read from; 0 when `pointer` is one.
template <class T>
LDF_HD int elements_to_alignment(const T* pointer) {
  const auto beyond = reinterpret_cast<std::uintptr_t>(pointer) % 16;
  return static_cast<int>((16 - beyond) % 16 / sizeof(T));
}

// `pointer` is 16-byte aligned; on a GPU it points to global memory.
template <class T>
LDF_HD Vector<T> load_vector(const T* pointer) {
  return *reinterpret_cast<const Vector<T>*>(pointer);
}
template <class T>
LDF_HD void store_vector(T* pointer, const Vector<T>& vector) {
#ifdef __CUDA_ARCH__
  // Said outright: of a plain assignment the compiler makes four stores where it merges the branches round it.
  __stwb(reinterpret_cast<uint4*>(pointer),
         make_uint4(vector.words[0], vector.words[1], vector.words[2], vector.words[3]));
#else
  *reinterpret_cast<Vector<T>*>(pointer) = vector;
#endif
}

}  // namespace ldf
