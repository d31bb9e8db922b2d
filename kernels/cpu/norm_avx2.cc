// RMS norm, AVX2+FMA; the arithmetic is in norm_body.h.
#include "kernels/cpu/f32x16_avx2.h"

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/norm_body.h"
