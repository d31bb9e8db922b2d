// The tables of the ISA levels. Built without ISA flags.
#include "solver/predictor/math.h"

#include "solver/predictor/math_levels.h"

namespace thermocline::math {
namespace {

constexpr Math kReference = {reference::multiply, reference::logistic_slope, reference::adam};
constexpr Math kAvx2 = {avx2::multiply, avx2::logistic_slope, avx2::adam};
constexpr Math kAvx512 = {avx512::multiply, avx512::logistic_slope, avx512::adam};

}  // namespace

const Math& math_of(kernels::Isa isa) {
  switch (isa) {
    case kernels::Isa::kAvx512:
      return kAvx512;
    case kernels::Isa::kAvx2:
      return kAvx2;
    case kernels::Isa::kReference:
      break;
  }
  return kReference;
}

}  // namespace thermocline::math
