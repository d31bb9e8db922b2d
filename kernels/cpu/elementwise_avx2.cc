// Addition and conversion of arrays, AVX2+FMA; the arithmetic is in elementwise_body.h.
#include "kernels/cpu/f32x16_avx2.h"

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/elementwise_body.h"
