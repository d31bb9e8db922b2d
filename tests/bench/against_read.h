// How benchmarks of kernels time what streams through memory: beside a plain read of as much, by
// the same threads, in the same run. No kernel is here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace thermocline::kernels {

inline constexpr int64_t kBufferBytes = int64_t{512} << 20;
// A sample is short, so that on a busy machine some are undisturbed; pieces are read and multiplied
// half a buffer apart, so that neither finds the other's in a cache.
inline constexpr int kPieces = 8;
inline constexpr int64_t kPieceBytes = kBufferBytes / kPieces;
inline constexpr int kPasses = 5;

double seconds_of(const std::function<void()>& work);

// The value below which `share` of the samples lie. The median says how fast it was, the best tenth
// (0.9) how fast it is when neighbours on a shared machine leave it alone.
double quantile(std::vector<double> values, double share);

// kBufferBytes of huge pages for the life of the process, filled with f16 of about 0.08, which as
// quants and sub-scales are any number.
uint8_t* allocate_buffer();

// Some work on one piece (`data` is its first byte), as thread `thread` of n_threads does its part.
struct Streaming {
  std::string name;
  int64_t touched_bytes;  // of a piece, by all threads: whole lines of 64 bytes
  std::function<void(const uint8_t* data, int thread, int n_threads)> work;
};
// Prints a line: GB/s of the plain read, of the work, and the share.
void bench_against_read(const Ops& level, TensorType type, int n_threads, const uint8_t* buffer,
                        const Streaming& streaming);
void print_against_read_heading();

}  // namespace thermocline::kernels
