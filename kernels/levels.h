// The functions of every ISA level, by the names of the Ops table. Each is defined in
// reference/<op>.cc, cpu/<op>_avx2.cc and cpu/<op>_avx512.cc; isa.cc alone puts them in tables.
#pragma once

#include "kernels/ops.h"

#define THERMOCLINE_KERNEL_LEVEL(level)                                                            \
  namespace thermocline::kernels::level {                                                          \
  void quantize(const float* x, int64_t n, int8_t* q, float* scale, int32_t* sum);                 \
  void matmul_int8(const PackedMatrix& w, int64_t group_begin, int64_t group_end,                  \
                   const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride);      \
  void matmul_f32(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const float* x,   \
                  int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride);             \
  void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out);            \
  void rope_interleaved(float* x, int64_t n_rot, const float* cos, const float* sin);              \
  void relu_mul(const float* gate, const float* up, int64_t n, float* out);                        \
  void silu_mul(const float* gate, const float* up, int64_t n, float* out);                        \
  void add(const float* a, const float* b, int64_t n, float* out);                                 \
  void f32_to_f16(const float* x, int64_t n, uint16_t* out);                                       \
  void attend_tiles(const float* q, const KvHead& kv, int64_t n_positions, int64_t d_head,         \
                    float scale, int64_t tile_begin, int64_t tile_end, float* partial);            \
  void attend_merge(const float* partial, int64_t n_tiles, int64_t d_head, float* state);          \
  void attend_finish(const float* state, int64_t d_head, float* out);                              \
  void rows_int8(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const QuantizedRows& x,  \
                 int64_t n_tokens, float* out, int64_t out_stride);                                \
  void rows_f32(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const float* x,           \
                int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride);               \
  void sketch_int8(const RowMatrix& w, int64_t row_begin, int64_t row_end, const QuantizedRows& x, \
                   int64_t n_tokens, float* out, int64_t out_stride);                              \
  void add_rows(const NeuronMatrix& w, const int32_t* rows, const float* a, int64_t n,             \
                int64_t col_begin, int64_t col_end, float* out);                                   \
  void add_blocks(const NeuronMatrix& w, const ActiveBlock* blocks, int64_t n_blocks,              \
                  const int32_t* rows, const int8_t* q, int64_t col_begin, int64_t col_end,        \
                  float* out);                                                                     \
  uint64_t read_sum(const void* data, int64_t n_bytes);                                            \
  }

THERMOCLINE_KERNEL_LEVEL(reference)
THERMOCLINE_KERNEL_LEVEL(avx2)
THERMOCLINE_KERNEL_LEVEL(avx512)
#undef THERMOCLINE_KERNEL_LEVEL
