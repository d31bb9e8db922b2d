// Products of many tokens with a matrix: tile by tile its weights are dequantized to f16, and the
// device's GEMM multiplies them. Who calls decides when that pays (kGemmTokens).
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "gpu_worker/device.h"

namespace thermocline {

// From so many tokens on. In bytes of device memory, which bound all of it: matmul reads a weight's
// b bytes once for 8 tokens, add_neurons (a quarter of a layer's weights) once for 4; here they are
// read once, written as 2 bytes and read again, whatever the number of tokens. So the same is
// reached where (0.75 / 8 + 0.25 / 4) n_tokens b = b + 4: at 52 tokens with 4.5 bits a weight, at
// 30 with 8.5, sooner where the file has f16. The arithmetic does not show there: 64 tokens are 128
// operations a weight, 0.2 ps of an H100's 600 of its 990 TFLOP/s, beside 1.5 ps for 4.56 bytes
// at 3.0 TB/s. Predicted, not measured.
inline constexpr int64_t kGemmTokens = 48;

// Of a tile in f16: 4,096 rows of 4,096. An H100's GEMM with 512 tokens then takes 29 us, which
// hides the next launch (5 us); and a tile stays in the L2 cache of large cards (A100 40 MB, H100
// 50 MB) from one kernel to the next.
inline constexpr int64_t kGemmTileBytes = int64_t{32} << 20;

// Numbers: weights and activations are rounded to f16 (device_ops.h: dequantize, to_f16), sums are
// f32. A token's bits may depend on how many others there are, and on the tiles.
class DeviceProduct {
 public:
  struct Options {
    int64_t max_tokens = 1;
    // The most columns of any matrix, rows of ffn_down's output among them, and the most neurons.
    int64_t max_width = 1;
    int64_t tile_bytes = kGemmTileBytes;  // one row at least
  };
  static int64_t WorkspaceBytes(const Options& options);
  // workspace: of the device, 256-byte aligned. The device must outlive the object.
  DeviceProduct(Device* device, const Options& options, uint8_t* workspace);

  // What the next products multiply: x [n_tokens, x_stride], f32, `width` values a token. 16-byte
  // aligned, x_stride a multiple of 4.
  absl::Status SetInput(const float* x, int64_t x_stride, int64_t width, int64_t n_tokens);
  // out[t * out_stride + row] = row . x_t; the matrix has `width` columns.
  absl::Status Multiply(const kernels::DeviceMatrix& matrix, float* out, int64_t out_stride);
  // out [n_tokens, n_cols]: the sum over all of `width` neurons, each times its factor in x; added
  // to what is there, or in its place.
  absl::Status AddNeurons(const kernels::DeviceNeurons& down, float* out, bool adds = false);

 private:
  struct Buffers {
    uint8_t* gemm;    // kGemmWorkspaceBytes
    uint16_t* input;  // [max_tokens, input_stride_]
    uint16_t* tile;
  };
  static int64_t Place(const Options& options, uint8_t* base, Buffers* buffers);
  int64_t RowsOfTile(int64_t n_rows, int64_t n_cols) const;
  GemmCall Call() const;  // with what all products of this input have

  Device* const device_;
  const Options options_;
  Buffers buffers_;
  int64_t width_ = 0, input_stride_ = 0, n_tokens_ = 0;
};

}  // namespace thermocline
