// Products with single rows, and sketches, in AVX-512 (rows_body.h).
#include "kernels/cpu/i32x16_avx512.h"
#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/rows_body.h"
