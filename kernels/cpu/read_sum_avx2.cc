// Sums 64-bit words of a buffer as fast as memory gives them, with AVX2. Contract: ops.h.
#include <immintrin.h>

#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx2 {

uint64_t read_sum(const void* data, int64_t n_bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  const uint8_t* end = p + n_bytes;
  __m256i sums[8];
  THERMOCLINE_UNROLL
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_si256();
  for (; end - p >= 256; p += 256) {
    THERMOCLINE_UNROLL
    for (int i = 0; i < 8; ++i) {
      const __m256i* words = reinterpret_cast<const __m256i*>(p + 32 * i);
      sums[i] = _mm256_add_epi64(sums[i], _mm256_loadu_si256(words));
    }
  }
  uint64_t sum = 0;
  THERMOCLINE_UNROLL
  for (int i = 0; i < 8; ++i) {
    uint64_t lanes[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[i]);
    sum += lanes[0] + lanes[1] + lanes[2] + lanes[3];
  }
  for (; p < end; p += 8) {
    uint64_t word = 0;  // bytes past the end count as 0
    __builtin_memcpy(&word, p, static_cast<size_t>(end - p < 8 ? end - p : 8));
    sum += word;
  }
  return sum;
}

}  // namespace thermocline::kernels::avx2
