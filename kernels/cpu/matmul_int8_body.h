// Quantized weights times int8 activations: the loop over groups and tiles of tokens, and which
// type is which Block. Included after a level's Blocks, its tile<Block, T>() and kTileTokens, with
// THERMOCLINE_LEVEL its name.
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

// A tile of n_tokens <= T tokens.
template <class Block, int T>
void tile_of(int64_t n_tokens, const PackedMatrix& w, const uint8_t* group, const QuantizedRows& x,
             int64_t token, float* out, int64_t out_stride) {
  if constexpr (T > 1) {
    if (n_tokens < T) {
      return tile_of<Block, T - 1>(n_tokens, w, group, x, token, out, out_stride);
    }
  }
  tile<Block, T>(w, group, x, token, out, out_stride);
}

template <class Block>
void multiply(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const QuantizedRows& x,
              int64_t n_tokens, float* out, int64_t out_stride) {
  for (int64_t g = group_begin; g < group_end; ++g) {  // its weights stay in cache for all tiles
    const uint8_t* group = w.data + g * w.group_bytes;
    float* rows = out + (g - group_begin) * kGroupRows;
    for (int64_t t = 0; t < n_tokens; t += kTileTokens) {
      tile_of<Block, kTileTokens>(n_tokens - t, w, group, x, t, rows, out_stride);
    }
  }
}

}  // namespace

void matmul_int8(const PackedMatrix& w, int64_t group_begin, int64_t group_end,
                 const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride) {
  switch (w.type) {
    case TensorType::kQ8_0:
      return multiply<Q8_0>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ4_0:
      return multiply<Q4_0>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ4_K:
      return multiply<Q4_K>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ5_K:
      return multiply<Q5_K>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ6_K:
      return multiply<Q6_K>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    default:
      __builtin_trap();  // float weights take matmul_f32
  }
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
