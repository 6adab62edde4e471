// The arithmetic of pixels, for CPU and CUDA alike, the same to the bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "common.h"
#include "dtype.h"
#include "frame.h"
#include "rounded.h"

#if defined(__SSE__) && !defined(__CUDACC__)
#include <xmmintrin.h>
#endif

namespace ldf {

// A sample at an address that is aligned on a GPU, and may not be on a CPU.
template <class T>
LDF_HD inline T load(const char* at) {
#if defined(__CUDACC__) || defined(LDF_HOST_CUDA)
  return *reinterpret_cast<const T*>(at);
#else
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
#endif
}

template <class T>
LDF_HD inline void store(char* at, T value) {
#if defined(__CUDACC__) || defined(LDF_HOST_CUDA)
  *reinterpret_cast<T*>(at) = value;
#else
  std::memcpy(at, &value, sizeof(value));
#endif
}

// NaN becomes `low`.
LDF_HD inline float clipped(float value, float low, float high) {
#if defined(__SSE__) && !defined(__CUDACC__)
  // The same without jumps: where pictures clip here and there, GCC's cost a misprediction each.
  return _mm_cvtss_f32(_mm_min_ss(_mm_max_ss(_mm_set_ss(value), _mm_set_ss(low)), _mm_set_ss(high)));
#else
  value = value > low ? value : low;
  return value < high ? value : high;
#endif
}

// The nearest whole number of 0 <= value < 2^22, halves to even: there floats of 2^23 and up have no fraction.
LDF_HD inline std::int32_t nearest(float value) {
  return static_cast<std::int32_t>((value + 8388608.0f) - 8388608.0f);
}

template <class T>
LDF_HD constexpr float top() {
  return sizeof(T) == 1 ? 255.0f : 65535.0f;
}

// The level of a T that is nearest.
template <class T>
LDF_HD inline T level(float value) {
  return static_cast<T>(nearest(clipped(value, 0.0f, top<T>())));
}

// An element of a plane to a number in [0, 1] and back.
LDF_HD inline float from_element(float value) { return value; }
LDF_HD inline float from_element(Half value) { return to_float(value); }
LDF_HD inline float from_element(Bfloat16 value) { return to_float(value); }
LDF_HD inline float from_element(std::uint8_t value) { return quotient(static_cast<float>(value), 255.0f); }

template <class E>
LDF_HD inline E to_element(float value) {
  return from_float<E>(value);
}
template <>
LDF_HD inline std::uint8_t to_element<std::uint8_t>(float value) {
  return level<std::uint8_t>(product(value, 255.0f));
}

LDF_HD inline float read_element(PlaneType type, const char* at) {
  switch (type) {
    case PlaneType::u8: return from_element(load<std::uint8_t>(at));
    case PlaneType::f16: return from_element(load<Half>(at));
    case PlaneType::bf16: return from_element(load<Bfloat16>(at));
    case PlaneType::f32: break;
  }
  return load<float>(at);
}

LDF_HD inline void write_element(PlaneType type, char* at, float value) {
  switch (type) {
    case PlaneType::u8: return store(at, to_element<std::uint8_t>(value));
    case PlaneType::f16: return store(at, to_element<Half>(value));
    case PlaneType::bf16: return store(at, to_element<Bfloat16>(value));
    case PlaneType::f32: break;
  }
  store(at, value);
}

// ITU-R BT.601.
LDF_HD inline float luma_of(float blue, float green, float red) {
  return product(0.114f, blue) + product(0.587f, green) + product(0.299f, red);
}

// Where blue is among the channels of a format of three; red is at 2 - blue.
LDF_HD constexpr int blue_of(Format format) { return format == Format::rgb8 || format == Format::rgb16 ? 2 : 0; }

}  // namespace ldf
