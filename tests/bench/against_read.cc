// Times work on memory beside the plain read (see against_read.h).
#include "tests/bench/against_read.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace thermocline::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// From the first start to the last end of work(thread) in n_threads threads, by their own clocks:
// this thread may be woken late.
double seconds_of_threads(int n_threads, const std::function<void(int)>& work) {
  std::barrier gate(n_threads);
  std::vector<Clock::time_point> starts(n_threads), ends(n_threads);
  std::vector<std::thread> threads;
  for (int i = 0; i < n_threads; ++i) {
    threads.emplace_back([&, i] {
      gate.arrive_and_wait();
      starts[i] = Clock::now();
      work(i);
      ends[i] = Clock::now();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(*std::max_element(ends.begin(), ends.end()) -
                                       *std::min_element(starts.begin(), starts.end()))
      .count();
}

}  // namespace

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size()))];
}

uint8_t* allocate_buffer() {
  void* p = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    fmt::print(stderr, "kernel_bench: no memory for {} MiB\n", kBufferBytes >> 20);
    std::exit(1);
  }
  madvise(p, kBufferBytes, MADV_HUGEPAGE);
  auto* data = static_cast<uint8_t*>(p);
  for (int64_t i = 0; i < kBufferBytes; ++i) data[i] = static_cast<uint8_t>(0x28 | (i * 7 & 7));
  return data;
}

void print_against_read_heading() {
  fmt::print("{:43} {:27} {}\n", "", "median", "best tenth");
  fmt::print(
      "isa      type  op                   threads     read       op  of read      read"
      "       op  of read\n");
}

void bench_against_read(const Ops& level, TensorType type, int n_threads, const uint8_t* buffer,
                        const Streaming& streaming) {
  volatile uint64_t sink = 0;
  std::vector<double> read_gbps, work_gbps;
  for (int sample = 0; sample < kPieces * kPasses; ++sample) {
    const uint8_t* piece = buffer + sample % kPieces * kPieceBytes;
    const double read = seconds_of_threads(n_threads, [&](int i) {
      const int64_t begin = kPieceBytes * i / n_threads / 64 * 64;
      const int64_t end = kPieceBytes * (i + 1) / n_threads / 64 * 64;
      sink = sink + level.read_sum(piece + begin, end - begin);
    });
    const uint8_t* other = buffer + (sample + kPieces / 2) % kPieces * kPieceBytes;
    const double work =
        seconds_of_threads(n_threads, [&](int i) { streaming.work(other, i, n_threads); });
    read_gbps.push_back(static_cast<double>(kPieceBytes) * 1e-9 / read);
    work_gbps.push_back(static_cast<double>(streaming.touched_bytes) * 1e-9 / work);
  }
  const double read = quantile(read_gbps, 0.5), work = quantile(work_gbps, 0.5);
  const double best_read = quantile(read_gbps, 0.9), best_work = quantile(work_gbps, 0.9);
  fmt::print("{:8} {:5} {:20} {:7} {:8.1f} {:8.1f} {:6.0f} % {:9.1f} {:8.1f} {:6.0f} %\n",
             level.name, type_info(type)->name, streaming.name, n_threads, read, work,
             100 * work / read, best_read, best_work, 100 * best_work / best_read);
}

}  // namespace thermocline::kernels
