// How an ISA file asks the compiler to unroll a loop of constant length, so that its arrays become
// registers, and to inline a function whatever its size. The compilers spell it differently.
#pragma once

#if defined(__clang__)
#define THERMOCLINE_UNROLL _Pragma("unroll")
#else
#define THERMOCLINE_UNROLL _Pragma("GCC unroll 32")
#endif
#define THERMOCLINE_INLINE inline __attribute__((always_inline))
#define THERMOCLINE_INLINE_LAMBDA __attribute__((always_inline))
