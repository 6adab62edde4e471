#include "adain.h"

#include <algorithm>

#include "adain_math.h"
#include "parallel.h"

namespace ldf {
namespace {

// Sums run in this many lanes, so that the compiler may use vectors without reordering anything.
constexpr int kLanes = 16;

double total(const double (&lanes)[kLanes]) {
  double sum = 0.0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

LDF_CLONES double sum_of(const float* x, std::int64_t n) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[i + k]);
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(x[i]);
  return total(lanes);
}

LDF_CLONES double squares_of(const float* x, std::int64_t n, double mean) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const double d = static_cast<double>(x[i + k]) - mean;
      lanes[k] += d * d;
    }
  }
  for (; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - mean;
    lanes[0] += d * d;
  }
  return total(lanes);
}

LDF_CLONES void apply(const float* x, std::int64_t n, const AdainMap& map, float* y) {
  const AdainMap m = map;
  for (std::int64_t i = 0; i < n; ++i) y[i] = adain_apply(x[i], m);
}

// One plane as runs of neighbouring floats; rows with gaps pass through a buffer.
struct Plane {
  const float* first;
  std::int64_t rows, columns, stride_h, stride_w;

  template <class Visit>
  void each_run(Visit visit) const {
    constexpr std::int64_t kChunk = 1024;
    float buffer[kChunk];
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* start = first + row * stride_h;
      if (stride_w == 1) {
        visit(start, columns);
        continue;
      }
      for (std::int64_t i = 0; i < columns; i += kChunk) {
        const std::int64_t n = std::min(kChunk, columns - i);
        for (std::int64_t k = 0; k < n; ++k) buffer[k] = start[(i + k) * stride_w];
        visit(buffer, n);
      }
    }
  }
};

void adain_plane(const Plane& plane, float weight, float bias, double eps, float* y) {
  const auto pixels = static_cast<double>(plane.rows * plane.columns);
  double sum = 0.0;
  plane.each_run([&](const float* x, std::int64_t n) { sum += sum_of(x, n); });
  const double mean = sum / pixels;
  double squares = 0.0;
  plane.each_run([&](const float* x, std::int64_t n) { squares += squares_of(x, n, mean); });
  const AdainMap map = adain_map(mean, squares / pixels, weight, bias, eps);
  plane.each_run([&](const float* x, std::int64_t n) {
    apply(x, n, map, y);
    y += n;
  });
}

}  // namespace

void adain_cpu(const AdainCpuParams& p, int threads) {
  const std::int64_t pixels = p.h * p.w;
  const bool one_run = p.stride_h == p.w * p.stride_w;  // rows follow each other
  parallel_for(p.n * p.c, p.n * p.c * pixels / 2, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* first = p.x + (i / p.c) * p.stride_n + (i % p.c) * p.stride_c;
      const Plane plane{first, one_run ? 1 : p.h, one_run ? pixels : p.w, p.stride_h, p.stride_w};
      adain_plane(plane, p.weight[i], p.bias[i], p.eps, p.y + i * pixels);
    }
  });
}

}  // namespace ldf
