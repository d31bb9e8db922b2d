// What active neurons add to the output, in AVX-512 (neurons_body.h).
#include "kernels/cpu/i32x16_avx512.h"
#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/neurons_body.h"
