// The gated activations of the FFN, AVX2+FMA; the arithmetic is in activation_body.h.
#include "kernels/cpu/f32x16_avx2.h"

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/activation_body.h"
