// The gated activations of the FFN, AVX-512; the arithmetic is in activation_body.h.
#include "kernels/cpu/f32x16_avx512.h"

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/activation_body.h"
