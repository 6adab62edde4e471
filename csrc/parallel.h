// A loop over independent items on a few threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace ldf {

// Below this many elements a thread costs more (tens of microseconds) than it saves.
constexpr std::int64_t kElementsPerThread = 1 << 16;

// Calls body(begin, end) for pieces that cover [0, count) once. `elements` is the size of the whole job, which
// bounds the threads that are worth starting. body must not throw. Threads live for one call: nothing to shut
// down, nothing that a fork() could break. Where the system refuses a thread the others do its share.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t elements, int threads, Body body) {
  const std::int64_t wanted =
      std::min({static_cast<std::int64_t>(threads), count, elements / kElementsPerThread + 1});
  if (wanted <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  // Several pieces a thread, handed out as threads come free: boxes differ in size, cores in speed.
  const std::int64_t piece = std::max<std::int64_t>(1, count / (wanted * 8));
  std::atomic<std::int64_t> next{0};
  auto work = [&] {
    for (;;) {
      const std::int64_t begin = next.fetch_add(piece);
      if (begin >= count) return;
      body(begin, std::min(count, begin + piece));
    }
  };
  std::vector<std::thread> helpers;
  helpers.reserve(static_cast<std::size_t>(wanted - 1));
  try {
    for (std::int64_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
  }
  work();
  for (auto& helper : helpers) helper.join();
}

}  // namespace ldf
