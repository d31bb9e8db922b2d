// Rotary position embedding, AVX-512; the arithmetic is in rope_body.h.
#include "kernels/cpu/f32x16_avx512.h"

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/rope_body.h"
