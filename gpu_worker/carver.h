// Lays buffers out in a piece of device memory. No device calls.
#pragma once

#include <cstdint>

namespace thermocline {

// Hands out aligned pieces, or counts them: base null.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <typename T>
  void Take(int64_t n, T** piece) {
    if (base_ != nullptr) *piece = reinterpret_cast<T*>(base_ + n_bytes_);
    n_bytes_ += (n * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t n_bytes() const { return n_bytes_; }

 private:
  static constexpr int64_t kAlignment = 256;
  uint8_t* base_;
  int64_t n_bytes_ = 0;
};

}  // namespace thermocline
