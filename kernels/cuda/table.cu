// The table of one device's operations.
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels {

#ifdef __CUDACC__
const DeviceOps& cuda_ops() {
#else
const DeviceOps& emulated_ops() {
#endif
  using namespace SIMT_DEVICE;
  static constexpr DeviceOps kOps = {
#ifdef __CUDACC__
      .name = "cuda",
#else
      .name = "emulated",
#endif
      .quantize = quantize,
      .rms_norm = rms_norm,
      .matmul = matmul,
      .relu_mul = relu_mul,
      .silu_mul = silu_mul,
      .relu_relu_mul = relu_relu_mul,
      .add = add,
      .exchange = exchange,
      .select = select,
      .select_bits = select_bits,
      .add_neurons = add_neurons,
      .dequantize = dequantize,
      .dequantize_neurons = dequantize_neurons,
      .to_f16 = to_f16,
      .rope_store = rope_store,
      .attend = attend,
      .merge_tail = merge_tail,
      .copy = copy,
      .stamp = stamp,
      .run_program = run_program,
      .top_k = top_k,
  };
  return kOps;
}

}  // namespace thermocline::kernels
