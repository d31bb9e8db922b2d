// Launches what active neurons add.
#include "kernels/cuda/add_neurons.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

template <TensorType kType, bool kHasPlanes>
LaunchError launch_chunks(DeviceStream* stream, const AddNeuronsCall& call) {
  const int64_t of_tokens = call.n_chunks * div_up(call.w.n_cols, kWarpColumns);
  if (call.n_tokens == 1) {
    return launch_op<AddChunk<kType, kHasPlanes, 1>>(stream, of_tokens, call);
  }
  return launch_op<AddChunk<kType, kHasPlanes, kGroupTokens>>(
      stream, div_up(call.n_tokens, kGroupTokens) * of_tokens, call);
}

LaunchError launch_type(DeviceStream* stream, const AddNeuronsCall& call) {
  const bool has_planes = call.w.has_planes;
  switch (call.w.type) {
    case TensorType::kF32:
      return launch_chunks<TensorType::kF32, false>(stream, call);
    case TensorType::kF16:
      return launch_chunks<TensorType::kF16, false>(stream, call);
    case TensorType::kBF16:
      return launch_chunks<TensorType::kBF16, false>(stream, call);
    case TensorType::kQ8_0:
      return has_planes ? launch_chunks<TensorType::kQ8_0, true>(stream, call)
                        : launch_chunks<TensorType::kQ8_0, false>(stream, call);
    case TensorType::kQ4_0:
      return has_planes ? launch_chunks<TensorType::kQ4_0, true>(stream, call)
                        : launch_chunks<TensorType::kQ4_0, false>(stream, call);
    case TensorType::kQ4_K:
      return launch_chunks<TensorType::kQ4_K, true>(stream, call);
    case TensorType::kQ5_K:
      return launch_chunks<TensorType::kQ5_K, true>(stream, call);
    case TensorType::kQ6_K:
      return launch_chunks<TensorType::kQ6_K, true>(stream, call);
  }
  return 0;  // every type is above
}

}  // namespace

LaunchError add_neurons(DeviceStream* stream, const DeviceNeurons& w, const RowList& list,
                        const float* a, int64_t a_stride, int64_t n_tokens, float* out,
                        void* workspace) {
  const int64_t n_chunks = div_up(list.rows == nullptr ? w.n_neurons : list.max, kNeuronChunk);
  const AddNeuronsCall call = {
      w, list, a, a_stride, n_tokens, n_chunks, static_cast<float*>(workspace), out};
  const LaunchError error = launch_type(stream, call);
  if (error != 0) return error;
  return launch_op<AddChunks>(stream, n_tokens * div_up(w.n_cols, kWarp), call);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
