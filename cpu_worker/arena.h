// One anonymous mapping that is cut into aligned pieces: a shard's weights, or a KV cache. Pages
// appear when they are first written, on the node of the thread that writes.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace thermocline {

class Arena {
 public:
  // ResourceExhausted with the size and `what` when the kernel refuses. Huge pages where it may.
  static absl::StatusOr<std::unique_ptr<Arena>> Create(int64_t n_bytes, const char* what);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // The next piece, 64-byte aligned, zeros. The pieces together must fit.
  uint8_t* Take(int64_t n_bytes);
  static int64_t Aligned(int64_t n_bytes) { return (n_bytes + 63) / 64 * 64; }

  const uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  Arena(uint8_t* data, int64_t size) : data_(data), size_(size) {}
  uint8_t* data_;
  int64_t size_;
  int64_t used_ = 0;
};

}  // namespace thermocline
