// Walks a matrix in tiles of rows, ffn_down in tiles of neurons.
#include "gpu_worker/device_product.h"

#include <algorithm>

#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "gpu_worker/carver.h"

namespace thermocline {
namespace {

constexpr int64_t kHalfBytes = sizeof(uint16_t);
constexpr int64_t kStrideUnit = 8;  // 16 bytes
// GEMM kernels take 128 rows at a time, so tiles end there, unless a tile is smaller.
constexpr int64_t kRowUnit = 128;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

int64_t DeviceProduct::Place(const Options& options, uint8_t* base, Buffers* buffers) {
  Carver carver(base);
  carver.Take(kGemmWorkspaceBytes, &buffers->gemm);
  carver.Take(options.max_tokens * RoundUp(options.max_width, kStrideUnit), &buffers->input);
  carver.Take(std::max(options.tile_bytes / kHalfBytes, options.max_width), &buffers->tile);
  return carver.n_bytes();
}

int64_t DeviceProduct::WorkspaceBytes(const Options& options) {
  Buffers unused;
  return Place(options, nullptr, &unused);
}

DeviceProduct::DeviceProduct(Device* device, const Options& options, uint8_t* workspace)
    : device_(device), options_(options) {
  Place(options, workspace, &buffers_);
}

absl::Status DeviceProduct::SetInput(const float* x, int64_t x_stride, int64_t width,
                                     int64_t n_tokens) {
  THERMOCLINE_CHECK(width <= options_.max_width && n_tokens <= options_.max_tokens);
  width_ = width;
  input_stride_ = RoundUp(width, kStrideUnit);
  n_tokens_ = n_tokens;
  return device_->Check(device_->ops().to_f16(device_->stream(), x, x_stride, n_tokens, width,
                                              buffers_.input, input_stride_),
                        "to_f16");
}

// As few tiles as fit, and all but the last of one size.
int64_t DeviceProduct::RowsOfTile(int64_t n_rows, int64_t n_cols) const {
  THERMOCLINE_CHECK(n_cols <= options_.max_width);
  const int64_t n = std::max<int64_t>(options_.tile_bytes / kHalfBytes / n_cols, 1);
  if (n >= n_rows || n < kRowUnit) return n;
  const int64_t most = n / kRowUnit * kRowUnit;
  const int64_t n_tiles = (n_rows + most - 1) / most;
  return RoundUp((n_rows + n_tiles - 1) / n_tiles, kRowUnit);
}

GemmCall DeviceProduct::Call() const {
  GemmCall call;
  call.n_tokens = n_tokens_;
  call.a = buffers_.input;
  call.a_stride = input_stride_;
  call.workspace = buffers_.gemm;
  return call;
}

absl::Status DeviceProduct::Multiply(const kernels::DeviceMatrix& matrix, float* out,
                                     int64_t out_stride) {
  THERMOCLINE_CHECK(matrix.n_cols == width_);
  if (n_tokens_ == 0) return absl::OkStatus();
  // f16 is multiplied where it lies.
  const bool is_f16 = matrix.type == TensorType::kF16;
  const int64_t n_rows = is_f16 ? matrix.n_rows : RowsOfTile(matrix.n_rows, matrix.n_cols);
  GemmCall call = Call();
  call.k = width_;
  call.b = is_f16 ? reinterpret_cast<const uint16_t*>(matrix.quants) : buffers_.tile;
  call.c_stride = out_stride;
  for (int64_t begin = 0; begin < matrix.n_rows; begin += n_rows) {
    const int64_t end = std::min(begin + n_rows, matrix.n_rows);
    if (!is_f16) {
      RETURN_IF_ERROR(device_->Check(
          device_->ops().dequantize(device_->stream(), matrix, begin, end, buffers_.tile),
          "dequantize"));
    }
    call.n = end - begin;
    call.c = out + begin;
    RETURN_IF_ERROR(device_->Gemm(call));
  }
  return absl::OkStatus();
}

absl::Status DeviceProduct::AddNeurons(const kernels::DeviceNeurons& down, float* out, bool adds) {
  THERMOCLINE_CHECK(down.n_neurons == width_);
  if (n_tokens_ == 0) return absl::OkStatus();
  if (width_ == 0) {
    const int64_t n_bytes = n_tokens_ * down.n_cols * int64_t{sizeof(float)};
    return adds ? absl::OkStatus() : device_->Fill(out, 0, n_bytes);
  }
  const bool is_f16 = down.type == TensorType::kF16;
  const int64_t n_neurons = is_f16 ? width_ : RowsOfTile(width_, down.n_cols);
  GemmCall call = Call();
  call.n = down.n_cols;
  call.b = is_f16 ? reinterpret_cast<const uint16_t*>(down.quants) : buffers_.tile;
  call.weights = GemmWeights::kNeurons;
  call.c = out;
  call.c_stride = down.n_cols;
  for (int64_t begin = 0; begin < width_; begin += n_neurons) {
    const int64_t end = std::min(begin + n_neurons, width_);
    if (!is_f16) {
      RETURN_IF_ERROR(device_->Check(
          device_->ops().dequantize_neurons(device_->stream(), down, begin, end, buffers_.tile),
          "dequantize_neurons"));
    }
    call.a = buffers_.input + begin;
    call.k = end - begin;
    call.adds = adds || begin > 0;
    RETURN_IF_ERROR(device_->Gemm(call));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
