// Products with single rows, and sketches, in AVX2 (rows_body.h).
#include "kernels/cpu/i32x16_avx2.h"
#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/rows_body.h"
