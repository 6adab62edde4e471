// Four neighbouring pixels a thread, moved as whole words where rows allow it.
#pragma once

#include "frame_math.h"

namespace ldf {

constexpr int kFour = 4;

// Whether four elements from any x that 4 divides lie in one piece at a multiple of `bytes`.
inline bool in_words(const void* first, std::int64_t stride_y, std::int64_t stride_x, std::int64_t pixel_bytes,
                     std::int64_t bytes) {
  return stride_x == pixel_bytes && stride_y % bytes == 0 &&
         reinterpret_cast<std::uintptr_t>(first) % static_cast<std::uintptr_t>(bytes) == 0;
}

inline bool in_words(const Plane& p) {
  return in_words(p.values, p.stride_y, p.stride_x, bytes_of(p.type), kFour * bytes_of(p.type));
}

// The samples of four pixels, kCount of T, in 32-bit words; a word aligned address.
template <class T, int kCount>
struct Words {
  static constexpr int kEach = 4 / sizeof(T);
  std::uint32_t words[kCount / kEach];

  __device__ static Words read(const char* at) {
    Words w;
    for (int i = 0; i < kCount / kEach; ++i) w.words[i] = reinterpret_cast<const std::uint32_t*>(at)[i];
    return w;
  }
  __device__ void write(char* at) const {
    for (int i = 0; i < kCount / kEach; ++i) reinterpret_cast<std::uint32_t*>(at)[i] = words[i];
  }
  __device__ T get(int i) const {
    return static_cast<T>(words[i / kEach] >> (i % kEach * static_cast<int>(sizeof(T)) * 8));
  }
  __device__ static Words pack(const T* samples) {
    Words w{};
    for (int i = 0; i < kCount; ++i) {
      w.words[i / kEach] |= static_cast<std::uint32_t>(samples[i]) << (i % kEach * static_cast<int>(sizeof(T)) * 8);
    }
    return w;
  }
};

// Four elements of a plane as one access.
template <class E>
struct alignas(kFour * sizeof(E)) Elements {
  E values[kFour];
};

template <class E>
__device__ inline void read_elements(const char* at, float* values) {
  const auto four = *reinterpret_cast<const Elements<E>*>(at);
  for (int i = 0; i < kFour; ++i) values[i] = from_element(four.values[i]);
}

template <class E>
__device__ inline void write_elements(char* at, const float* values) {
  Elements<E> four;
  for (int i = 0; i < kFour; ++i) four.values[i] = to_element<E>(values[i]);
  *reinterpret_cast<Elements<E>*>(at) = four;
}

__device__ inline void read_four(PlaneType type, const char* at, float* values) {
  switch (type) {
    case PlaneType::u8: return read_elements<std::uint8_t>(at, values);
    case PlaneType::f16: return read_elements<Half>(at, values);
    case PlaneType::bf16: return read_elements<Bfloat16>(at, values);
    case PlaneType::f32: return read_elements<float>(at, values);
  }
}

__device__ inline void write_four(PlaneType type, char* at, const float* values) {
  switch (type) {
    case PlaneType::u8: return write_elements<std::uint8_t>(at, values);
    case PlaneType::f16: return write_elements<Half>(at, values);
    case PlaneType::bf16: return write_elements<Bfloat16>(at, values);
    case PlaneType::f32: return write_elements<float>(at, values);
  }
}

__device__ inline char* element_at(const Plane& plane, std::int64_t x, std::int64_t y) {
  return static_cast<char*>(plane.values) + y * plane.stride_y + x * plane.stride_x;
}

// A block is 32x8 threads; the grid covers `height` rows as far as a grid may, and threads step on by rows_apart().
constexpr unsigned kAcross = 32, kDown = 8;

inline dim3 grid_over(std::int64_t height, std::int64_t threads_across) {
  const std::int64_t down = (height + kDown - 1) / kDown;
  return {static_cast<unsigned>((threads_across + kAcross - 1) / kAcross),
          static_cast<unsigned>(down < 65535 ? down : 65535), 1};
}

__device__ inline std::int64_t thread_across() { return static_cast<std::int64_t>(blockIdx.x) * kAcross + threadIdx.x; }
__device__ inline std::int64_t thread_down() { return static_cast<std::int64_t>(blockIdx.y) * kDown + threadIdx.y; }
__device__ inline std::int64_t rows_apart() { return static_cast<std::int64_t>(gridDim.y) * kDown; }

}  // namespace ldf
