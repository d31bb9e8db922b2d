// Products with single rows of float types in AVX-512 (rows_f32_body.h).
#include "kernels/cpu/i32x16_avx512.h"
#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/rows_f32_body.h"
