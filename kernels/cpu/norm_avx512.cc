// RMS norm, AVX-512; the arithmetic is in norm_body.h.
#include "kernels/cpu/f32x16_avx512.h"

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/norm_body.h"
