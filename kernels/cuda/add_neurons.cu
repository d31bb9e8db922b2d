// What active neurons add to the output. A block takes a chunk of the list and some columns: its
// threads own their columns, so nothing is added by two. A second kernel adds the chunks.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/neuron_octet.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = kNeuronChunk;  // each fetches one neuron of the list
constexpr int kBlockColumns = kThreads * kOctet;
constexpr int kGroupTokens = 4;  // that read weights together, in steps of more than one
constexpr int kSumThreads = 128;

struct Arguments {
  DeviceNeurons w;
  RowList list;
  const float* a;  // [n_tokens, a_stride]
  int64_t a_stride;
  int64_t n_tokens;
  float* partial;  // [n_chunks, n_tokens, n_cols]

  __device__ int64_t n_active() const { return list.rows == nullptr ? w.n_neurons : *list.n; }
};

// The neurons of a chunk that add something for one of the block's tokens, in order.
template <int kTokens>
struct Chunk {
  int32_t rows[kNeuronChunk], places[kNeuronChunk];
  float factors[kNeuronChunk][kTokens];
  int n_of_warp[kThreads / kWarp];
};

// Called by all threads; returns the number of neurons.
template <bool kHasPlanes, int kTokens>
__device__ __forceinline__ int gather(const Arguments& arguments, int64_t first, int64_t token,
                                      Chunk<kTokens>* chunk) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t i = first + threadIdx.x;
  const bool inside = i < arguments.n_active();
  float factors[kTokens] = {};
  bool adds = false;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (!inside || token + t >= arguments.n_tokens) continue;
    factors[t] = arguments.a[(token + t) * arguments.a_stride + i];
    adds |= factors[t] != 0.0f;
  }
  const unsigned of_warp = __ballot_sync(kAllLanes, adds);
  if (lane == 0) chunk->n_of_warp[warp] = __popc(of_warp);
  __syncthreads();
  if (adds) {
    const int before = warp == 0 ? 0 : chunk->n_of_warp[0];
    const int at = before + __popc(of_warp & ((1u << lane) - 1));
    const int64_t row = arguments.list.rows == nullptr ? i : arguments.list.rows[i];
    chunk->rows[at] = static_cast<int32_t>(row);
    chunk->places[at] = kHasPlanes ? arguments.w.places[row] : 0;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) chunk->factors[at][t] = factors[t];
  }
  __syncthreads();
  return chunk->n_of_warp[0] + chunk->n_of_warp[1];
}

// Whether neuron i of the chunk has other scales than the one before it. Those of a block of the
// file share theirs, which are then read once.
template <int kSharing>
__device__ __forceinline__ bool has_new_scales(const int32_t* places, int i) {
  return i == 0 || places[i] / kSharing != places[i - 1] / kSharing;
}

// Grid: chunks, parts of the columns, groups of tokens.
template <TensorType kType, bool kHasPlanes, int kTokens>
__global__ void __launch_bounds__(kThreads) add_chunk(Arguments arguments) {
  using Format = OctetFormat<kType>;
  constexpr int kInFlight = Format::kHasSub ? 4 : 8;  // neurons whose weights a thread waits for
  static_assert(kThreads == 2 * kWarp);
  SHARED(chunk, Chunk<kTokens>);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kNeuronChunk;
  if (first >= arguments.n_active()) return;
  const int64_t token = static_cast<int64_t>(blockIdx.z) * kTokens;
  const int n = gather<kHasPlanes>(arguments, first, token, &chunk);
  const DeviceNeurons& w = arguments.w;
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kOctet;
  if (col >= w.n_cols) return;
  float sums[kTokens][kOctet] = {};
  OctetScales scales = {};
  for (int begin = 0; begin < n; begin += kInFlight) {
    RawOctet<Format> octets[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int i = min(begin + u, n - 1);  // past the end: the last one again, unused
      load_quants(w, chunk.rows[i], col, &octets[u]);
      if constexpr (!Format::kIsFloat) {
        if (kHasPlanes && !has_new_scales<Format::kSharing>(chunk.places, i)) continue;
        load_scales<Format, kHasPlanes>(w, chunk.rows[i], chunk.places[i], col, &octets[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int i = begin + u;
      if (i >= n) continue;
      float weights[kOctet];
      if constexpr (Format::kIsFloat) {
        unpack_floats(octets[u], weights);
      } else {
        if (!kHasPlanes || has_new_scales<Format::kSharing>(chunk.places, i)) {
          unpack_scales<Format, kHasPlanes>(octets[u], &scales);
        }
        unpack_quants(octets[u], scales, weights);
      }
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const float factor = chunk.factors[i][t];
        if (factor == 0.0f) continue;  // so that a token's bits do not depend on the others
#pragma unroll
        for (int c = 0; c < kOctet; ++c) sums[t][c] = __fmaf_rn(factor, weights[c], sums[t][c]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (token + t >= arguments.n_tokens) continue;
    const int64_t row = blockIdx.x * arguments.n_tokens + token + t;
    auto* to = reinterpret_cast<float4*>(arguments.partial + row * w.n_cols + col);
    to[0] = make_float4(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
    to[1] = make_float4(sums[t][4], sums[t][5], sums[t][6], sums[t][7]);
  }
}

// Grid: tokens, parts of the columns.
__global__ void __launch_bounds__(kSumThreads) add_chunks(Arguments arguments, float* out) {
  const int64_t n_cols = arguments.w.n_cols;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kSumThreads + threadIdx.x;
  if (col >= n_cols) return;
  const int64_t at = blockIdx.x * n_cols + col;
  const int64_t n_chunks = div_up(arguments.n_active(), kNeuronChunk);
  float sum = n_chunks == 0 ? 0.0f : arguments.partial[at];
#pragma unroll 8
  for (int64_t i = 1; i < n_chunks; ++i) {
    sum = __fadd_rn(sum, arguments.partial[i * arguments.n_tokens * n_cols + at]);
  }
  out[at] = sum;
}

template <TensorType kType, bool kHasPlanes>
LaunchError launch_chunks(DeviceStream* stream, const Arguments& arguments, int64_t n_chunks) {
  const auto chunks = static_cast<unsigned>(n_chunks);
  const auto parts = static_cast<unsigned>(div_up(arguments.w.n_cols, kBlockColumns));
  if (arguments.n_tokens == 1) {
    return LAUNCH(stream, dim3(chunks, parts), kThreads, 0, (add_chunk<kType, kHasPlanes, 1>),
                  arguments);
  }
  const auto groups = static_cast<unsigned>(div_up(arguments.n_tokens, kGroupTokens));
  return LAUNCH(stream, dim3(chunks, parts, groups), kThreads, 0,
                (add_chunk<kType, kHasPlanes, kGroupTokens>), arguments);
}

LaunchError launch_type(DeviceStream* stream, const Arguments& arguments, int64_t n_chunks) {
  const bool has_planes = arguments.w.has_planes;
  switch (arguments.w.type) {
    case TensorType::kF32:
      return launch_chunks<TensorType::kF32, false>(stream, arguments, n_chunks);
    case TensorType::kF16:
      return launch_chunks<TensorType::kF16, false>(stream, arguments, n_chunks);
    case TensorType::kBF16:
      return launch_chunks<TensorType::kBF16, false>(stream, arguments, n_chunks);
    case TensorType::kQ8_0:
      return has_planes ? launch_chunks<TensorType::kQ8_0, true>(stream, arguments, n_chunks)
                        : launch_chunks<TensorType::kQ8_0, false>(stream, arguments, n_chunks);
    case TensorType::kQ4_0:
      return has_planes ? launch_chunks<TensorType::kQ4_0, true>(stream, arguments, n_chunks)
                        : launch_chunks<TensorType::kQ4_0, false>(stream, arguments, n_chunks);
    case TensorType::kQ4_K:
      return launch_chunks<TensorType::kQ4_K, true>(stream, arguments, n_chunks);
    case TensorType::kQ5_K:
      return launch_chunks<TensorType::kQ5_K, true>(stream, arguments, n_chunks);
    case TensorType::kQ6_K:
      return launch_chunks<TensorType::kQ6_K, true>(stream, arguments, n_chunks);
  }
  return 0;  // every type is above
}

}  // namespace

LaunchError add_neurons(DeviceStream* stream, const DeviceNeurons& w, const RowList& list,
                        const float* a, int64_t a_stride, int64_t n_tokens, float* out,
                        void* workspace) {
  if (n_tokens == 0 || w.n_cols == 0) return 0;
  const Arguments arguments = {w, list, a, a_stride, n_tokens, static_cast<float*>(workspace)};
  const int64_t n_chunks = div_up(list.rows == nullptr ? w.n_neurons : list.max, kNeuronChunk);
  if (n_chunks > 0) {
    const LaunchError error = launch_type(stream, arguments, n_chunks);
    if (error != 0) return error;
  }
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(w.n_cols, kSumThreads)));
  return LAUNCH(stream, grid, kSumThreads, 0, add_chunks, arguments, out);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
