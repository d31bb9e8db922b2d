// Sums 64-bit words of a buffer: the reference. Contract: ops.h, read_sum.
#include <cstring>

#include "kernels/levels.h"

namespace thermocline::kernels::reference {

uint64_t read_sum(const void* data, int64_t n_bytes) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  uint64_t sum = 0;
  for (int64_t at = 0; at < n_bytes; at += 8) {
    uint64_t word = 0;  // little-endian; bytes past the end count as 0
    std::memcpy(&word, bytes + at, n_bytes - at < 8 ? n_bytes - at : 8);
    sum += word;
  }
  return sum;
}

}  // namespace thermocline::kernels::reference
