// Products with single rows of float types in AVX2 (rows_f32_body.h).
#include "kernels/cpu/i32x16_avx2.h"
#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/rows_f32_body.h"
