// Sums 64-bit words of a buffer as fast as memory gives them, with AVX-512. Contract: ops.h. No
// software prefetch: it gains nothing on one ascending stream (Zen 4, distances of 2 to 8 KB).
#include <immintrin.h>

#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx512 {

uint64_t read_sum(const void* data, int64_t n_bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  const uint8_t* end = p + n_bytes;
  __m512i sums[8];
  THERMOCLINE_UNROLL
  for (int i = 0; i < 8; ++i) sums[i] = _mm512_setzero_si512();
  for (; end - p >= 512; p += 512) {
    THERMOCLINE_UNROLL
    for (int i = 0; i < 8; ++i) {
      sums[i] = _mm512_add_epi64(sums[i], _mm512_loadu_si512(p + 64 * i));
    }
  }
  for (; end - p >= 64; p += 64) sums[0] = _mm512_add_epi64(sums[0], _mm512_loadu_si512(p));
  const __mmask64 rest = (uint64_t{1} << (end - p)) - 1;
  __m512i sum = _mm512_maskz_loadu_epi8(rest, p);  // bytes past the end count as 0
  THERMOCLINE_UNROLL
  for (int i = 0; i < 8; ++i) sum = _mm512_add_epi64(sum, sums[i]);
  alignas(64) uint64_t lanes[8];
  _mm512_store_si512(lanes, sum);
  uint64_t total = 0;  // unsigned, since it wraps
  for (int i = 0; i < 8; ++i) total += lanes[i];
  return total;
}

}  // namespace thermocline::kernels::avx512
