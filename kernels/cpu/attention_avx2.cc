// Attention of one query head, AVX2+FMA; the arithmetic is in attention_body.h.
#include "kernels/cpu/f32x16_avx2.h"

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/attention_body.h"
