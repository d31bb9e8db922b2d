// Work cut into parts that a few threads take from one counter. Results do not depend on which
// thread takes which part.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace thermocline {

// Calls part(i) for i in [0, n_parts), on at most n_threads threads, this one among them.
template <typename Part>
void ForParts(int n_threads, int64_t n_parts, const Part& part) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < n_parts;) part(i);
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < std::min<int64_t>(n_threads, n_parts); ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
}

}  // namespace thermocline
