// Addition and conversion of arrays, AVX-512; the arithmetic is in elementwise_body.h.
#include "kernels/cpu/f32x16_avx512.h"

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/elementwise_body.h"
