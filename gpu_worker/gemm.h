// A product of f16 matrices as a device is asked for it (device.h). Plain numbers; nothing of CUDA.
#pragma once

#include <cstdint>

namespace thermocline {

// What cuBLAS may use as scratch memory: NVIDIA's own choice for Hopper, more than for others. The
// library takes no other while it runs, so a product's bits do not depend on what ran before.
inline constexpr int64_t kGemmWorkspaceBytes = int64_t{32} << 20;

enum class GemmWeights {
  kRows,     // b [n, k]: rows of a matrix
  kNeurons,  // b [k, n]: what neurons add
};

// c = a b, or c += a b where it adds; sums in f32. No size is 0. Cards are faster where addresses
// are 16-byte aligned and strides multiples of 8.
struct GemmCall {
  int64_t n_tokens = 0, n = 0, k = 0;
  const uint16_t* a = nullptr;  // [n_tokens, a_stride], of which k are read
  int64_t a_stride = 0;
  const uint16_t* b = nullptr;
  GemmWeights weights = GemmWeights::kRows;
  float* c = nullptr;  // [n_tokens, c_stride], of which n are written
  int64_t c_stride = 0;
  bool adds = false;
  uint8_t* workspace = nullptr;  // [kGemmWorkspaceBytes], 256-byte aligned
};

// The emulated device's. In f32, a fused multiply-add for each of k, ascending.
void emulated_gemm(const GemmCall& call);

}  // namespace thermocline
