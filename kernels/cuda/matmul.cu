// Launches products with few tokens: eight, four, two or one at a time.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/matmul.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kMaxTokens = 8;  // of a launch

template <TensorType kType>
LaunchError launch_type(DeviceStream* stream, const MatmulCall& call, int64_t n_tokens,
                        int64_t n_units) {
  switch (n_tokens) {
    case 1:
      return launch_op<Matmul<kType, 1>>(stream, n_units, call);
    case 2:
      return launch_op<Matmul<kType, 2>>(stream, n_units, call);
    case 4:
      return launch_op<Matmul<kType, 4>>(stream, n_units, call);
    default:
      return launch_op<Matmul<kType, 8>>(stream, n_units, call);
  }
}

LaunchError launch_tokens(DeviceStream* stream, const MatmulCall& call, int64_t n_tokens,
                          int64_t n_units) {
  switch (call.w.type) {
    case TensorType::kF32:
      return launch_type<TensorType::kF32>(stream, call, n_tokens, n_units);
    case TensorType::kF16:
      return launch_type<TensorType::kF16>(stream, call, n_tokens, n_units);
    case TensorType::kBF16:
      return launch_type<TensorType::kBF16>(stream, call, n_tokens, n_units);
    case TensorType::kQ8_0:
      return launch_type<TensorType::kQ8_0>(stream, call, n_tokens, n_units);
    case TensorType::kQ4_0:
      return launch_type<TensorType::kQ4_0>(stream, call, n_tokens, n_units);
    case TensorType::kQ4_K:
      return launch_type<TensorType::kQ4_K>(stream, call, n_tokens, n_units);
    case TensorType::kQ5_K:
      return launch_type<TensorType::kQ5_K>(stream, call, n_tokens, n_units);
    case TensorType::kQ6_K:
      return launch_type<TensorType::kQ6_K>(stream, call, n_tokens, n_units);
  }
  return 0;  // every type is above
}

}  // namespace

LaunchError matmul(DeviceStream* stream, const DeviceMatrix& w, const RowList& list,
                   const DeviceRows& x, const float* x_f32, int64_t x_stride, int64_t n_tokens,
                   float* out, int64_t out_stride) {
  const int64_t n_rows = list.rows == nullptr ? w.n_rows : list.max;
  const int64_t n_units = div_up(n_rows, kMatmulRows);
  MatmulCall call = {w, list, x, x_f32, x_stride, out, out_stride};
  while (n_tokens > 0) {
    int64_t n = 1;  // the most of 8, 4, 2, 1
    while (2 * n <= n_tokens && n < kMaxTokens) n *= 2;
    const LaunchError error = launch_tokens(stream, call, n, n_units);
    if (error != 0) return error;
    n_tokens -= n;
    call.out += n * out_stride;
    if (x_f32 != nullptr) call.x_f32 += n * x_stride;
    if (x.q == nullptr) continue;
    call.x.q += n * x.stride;
    call.x.scale += n * (x.stride / 32);
    call.x.sum += n * (x.stride / 32);
  }
  return 0;
}

}  // namespace thermocline::kernels::SIMT_DEVICE
