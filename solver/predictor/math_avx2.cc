// The array functions of training with AVX2+FMA; the arithmetic is in math_body.h.
#include "kernels/cpu/f32x16_avx2.h"

namespace thermocline::math::avx2 {
namespace {

constexpr int kTileRows = 6, kTileVectors = 1;

// condition > 0 ? yes : no, lane by lane.
inline kernels::F32x16 where_positive(kernels::F32x16 condition, kernels::F32x16 yes,
                                      kernels::F32x16 no) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(no.low, yes.low, _mm256_cmp_ps(condition.low, zero, _CMP_GT_OQ)),
          _mm256_blendv_ps(no.high, yes.high, _mm256_cmp_ps(condition.high, zero, _CMP_GT_OQ))};
}

}  // namespace
}  // namespace thermocline::math::avx2

#define THERMOCLINE_LEVEL avx2
#include "solver/predictor/math_body.h"
