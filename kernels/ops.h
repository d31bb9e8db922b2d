// The operations a CPU worker computes with, as one table of function pointers per ISA level. All
// levels give the same bits. No threads (a caller passes the part it wants), no allocation.
//
// Numbers: sums run in a fixed order that depends on shapes alone. "16 lanes" below means: element
// i goes to lane i % 16 by one f32 fma each, then lanes 8, 4, 2, 1 apart are added.
#pragma once

#include <cstdint>

#include "kernels/neurons.h"
#include "kernels/packed.h"
#include "kernels/rows.h"

namespace thermocline::kernels {

enum class Isa { kReference, kAvx2, kAvx512 };

// int8 activations, per 32 values: scale = amax / 127, q = rint(x / scale) half to even, clamped to
// +-127; a block of zeros has scale 0. k is a multiple of 32.
struct QuantizedRows {
  const int8_t* q = nullptr;     // [n_tokens, stride], of which k are used
  const float* scale = nullptr;  // [n_tokens, stride / 32]
  const int32_t* sum = nullptr;  // [n_tokens, stride / 32], sum of a block's q
  int64_t stride = 0;            // elements between tokens, a multiple of 32
};

enum class KvType { kF16, kF32 };

// One KV head's cache: element d of position p is at [p * stride + d], k and v alike.
struct KvHead {
  const void* k = nullptr;
  const void* v = nullptr;
  KvType type = KvType::kF16;
  int64_t stride = 0;  // in elements
};

// Positions of the context in one attention tile; tiles begin at multiples of it.
inline constexpr int64_t kAttentionTile = 64;
inline constexpr int64_t kMaxHeadDim = 512;

// The active neurons of one block of 32, as add_blocks reads them.
struct ActiveBlock {
  int32_t block;               // whose planes in the matrix
  int32_t begin, middle, end;  // their places in `rows` and `q`; from middle on: neurons 16..31
  int32_t sum;                 // of q
  float scale;                 // of q
};

struct Ops {
  const char* name;  // "reference", "avx2", "avx512"

  // x [n] -> q [n], scale [n / 32], sum [n / 32].
  void (*quantize)(const float* x, int64_t n, int8_t* q, float* scale, int32_t* sum);

  // out[t * out_stride + (row - 16 * group_begin)] = row . x_t for the rows of groups
  // [group_begin, group_end), padding rows included (so `out` has room for whole groups).
  // Quantized types. Blocks of k ascending; in each: an exact integer sum, converted to f32
  // (exact), fma(sum, weight_scale * scale, acc); with minimum: then fma(-block sum, min * scale,
  // acc). weight_scale: Q8_0, Q4_0, Q6_K: d (sub-scales of Q6_K are inside the integer); Q4_K:
  // f32(d * sc), its min: f32(dmin * m).
  void (*matmul_int8)(const PackedMatrix& w, int64_t group_begin, int64_t group_end,
                      const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride);
  // The same for f32 activations x [n_tokens, x_stride], any type: weights as dequantized, one fma
  // per k, ascending.
  void (*matmul_f32)(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const float* x,
                     int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride);

  // out[t * out_stride + i] = row rows[i] . x_t, `out` has room for whole 16s. The same bits
  // as matmul_int8 and matmul_f32 of the same rows; rows_int8 for quantized types, rows_f32 for
  // float ones.
  void (*rows_int8)(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const QuantizedRows& x,
                    int64_t n_tokens, float* out, int64_t out_stride);
  void (*rows_f32)(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const float* x,
                   int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride);
  // out[t * out_stride + (row - row_begin)] = about row . x_t, read from the lead alone: each
  // weight as the middle of those that its lead bits leave possible. A sign stands for +-row_scale:
  // blocks of k ascending, fma(integer, scale, acc), then acc * row_scale. Room for whole 16s.
  void (*sketch_int8)(const RowMatrix& w, int64_t row_begin, int64_t row_end,
                      const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride);

  // out[col] += sum over i of a[i] * the weight of row rows[i], for columns [col_begin, col_end),
  // col_begin a multiple of 128, col_end too or n_cols. One fma a row, in the order given; in Q8_0
  // and Q4_0: fma(f32(a * scale), q, out). For matrices without planes.
  void (*add_rows)(const NeuronMatrix& w, const int32_t* rows, const float* a, int64_t n,
                   int64_t col_begin, int64_t col_end, float* out);
  // The same for int8 activations q[i] of rows rows[i] and a matrix with planes, added block by
  // block: from 0 and with the blocks in ascending order, the bits of matmul_int8.
  void (*add_blocks)(const NeuronMatrix& w, const ActiveBlock* blocks, int64_t n_blocks,
                     const int32_t* rows, const int8_t* q, int64_t col_begin, int64_t col_end,
                     float* out);

  // out = (x * (1 / sqrt(mean(x^2) + eps))) * weight, sum of squares in 16 lanes.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);

  // Rotates pairs (2i, 2i+1) of one head: y0 = fma(x0, cos, -(x1 * sin)), y1 = fma(x0, sin, x1 *
  // cos). x [n_rot, in place], cos and sin [n_rot / 2].
  void (*rope_interleaved)(float* x, int64_t n_rot, const float* cos, const float* sin);

  // out = max(gate, 0) * up (a NaN gate stays NaN), and out = gate / (1 + exp(-gate)) * up.
  void (*relu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);

  // out = a + b (elementwise), may be in place.
  void (*add)(const float* a, const float* b, int64_t n, float* out);
  void (*f32_to_f16)(const float* x, int64_t n, uint16_t* out);

  // One query head at one position over positions [0, n_positions) of its KV head, as partial
  // results of tiles [tile_begin, tile_end), each of which has a position:
  // partial[tile - tile_begin] = {max, sum, o[d_head]}, stride 2 + d_head.
  // score = (q . k in 16 lanes) * scale; p = exp(score - max); sum of p in 16 lanes by position in
  // the tile; o[d] = fma(p, v[d], o[d]) over ascending positions.
  void (*attend_tiles)(const float* q, const KvHead& kv, int64_t n_positions, int64_t d_head,
                       float scale, int64_t tile_begin, int64_t tile_end, float* partial);
  // Adds n_tiles partials in ascending order to a running {max, sum, o} `state` (stride as above;
  // an empty state has sum 0): m = max(a, b), o = fma(o_b, exp(b - m), o_a * exp(a - m)), sum
  // alike.
  void (*attend_merge)(const float* partial, int64_t n_tiles, int64_t d_head, float* state);
  // out[d] = o[d] / sum.
  void (*attend_finish)(const float* state, int64_t d_head, float* out);

  // Sums 64-bit words of a buffer, widest loads: the plain read that bandwidths are compared with.
  uint64_t (*read_sum)(const void* data, int64_t n_bytes);
};

// The best level this machine and its OS support; kReference only on machines without AVX2.
Isa detect_isa();
bool isa_supported(Isa isa);
const Ops& ops(Isa isa);  // isa_supported(isa) must hold

}  // namespace thermocline::kernels
