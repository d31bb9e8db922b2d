// What active neurons add to the output, in AVX2 (neurons_body.h).
#include "kernels/cpu/i32x16_avx2.h"
#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/neurons_body.h"
