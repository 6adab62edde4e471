// A loop over independent items on a few threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace ldf {

// With less to do than this a thread costs more than it saves: tens of microseconds to start, more on a busy machine.
constexpr std::int64_t kNanosecondsPerThread = 250'000;

// Calls body(begin, end) for pieces that cover [0, count) once. `nanoseconds` is roughly what the whole job takes on
// one thread, and bounds the threads that are started. body must not throw. Threads live for one call: nothing to
// shut down, nothing that a fork() could break. Where the system refuses a thread the others do its share.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t nanoseconds, int threads, Body body) {
  const std::int64_t wanted =
      std::min({static_cast<std::int64_t>(threads), count, nanoseconds / kNanosecondsPerThread + 1});
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
  } catch (const std::exception&) {  // no more threads, or no memory for one
  }
  work();
  for (auto& helper : helpers) helper.join();
}

}  // namespace ldf
