// Attention of one query head, AVX-512; the arithmetic is in attention_body.h.
#include "kernels/cpu/f32x16_avx512.h"

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/attention_body.h"
