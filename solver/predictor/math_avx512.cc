// The array functions of training with AVX-512; the arithmetic is in math_body.h.
#include "kernels/cpu/f32x16_avx512.h"

namespace thermocline::math::avx512 {
namespace {

constexpr int kTileRows = 12, kTileVectors = 2;

// condition > 0 ? yes : no, lane by lane.
inline kernels::F32x16 where_positive(kernels::F32x16 condition, kernels::F32x16 yes,
                                      kernels::F32x16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(condition.v, _mm512_setzero_ps(), _CMP_GT_OQ),
                               no.v, yes.v)};
}

}  // namespace
}  // namespace thermocline::math::avx512

#define THERMOCLINE_LEVEL avx512
#include "solver/predictor/math_body.h"
