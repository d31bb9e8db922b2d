// Rotary position embedding, AVX2+FMA; the arithmetic is in rope_body.h.
#include "kernels/cpu/f32x16_avx2.h"

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/rope_body.h"
