// What active neurons add to the output. A warp takes a chunk of the list and some columns: its
// lanes own their columns, so nothing is added by two. A second op adds the chunks.
#pragma once

#include "kernels/cuda/neuron_octet.cuh"
#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kWarpColumns = kWarp * kOctet;
constexpr int kGroupTokens = 4;  // that read weights together, in steps of more than one

struct AddNeuronsCall {
  DeviceNeurons w;
  RowList list;
  const float* a;  // [n_tokens, a_stride]
  int64_t a_stride;
  int64_t n_tokens;
  int64_t n_chunks;  // of the list, at most
  float* partial;    // [n_chunks, n_tokens, n_cols]
  float* out;        // [n_tokens, n_cols]

  __device__ int64_t n_active() const { return list.rows == nullptr ? w.n_neurons : *list.n; }
};

// The neurons of a chunk that add something for one of the warp's tokens, in order.
template <int kTokens>
struct Chunk {
  int32_t rows[kNeuronChunk], places[kNeuronChunk];
  float factors[kNeuronChunk][kTokens];
};

// Called by all lanes; returns the number of neurons.
template <bool kHasPlanes, int kTokens>
__device__ __forceinline__ int gather(const AddNeuronsCall& call, int64_t first, int64_t token,
                                      Chunk<kTokens>* chunk) {
  static_assert(kNeuronChunk == 2 * kWarp);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t n_active = call.n_active();
  float factors[2][kTokens] = {};
  bool adds[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = first + half * kWarp + lane;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (i >= n_active || token + t >= call.n_tokens) continue;
      factors[half][t] = call.a[(token + t) * call.a_stride + i];
      adds[half] |= factors[half][t] != 0.0f;
    }
  }
  int n = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const unsigned of_half = __ballot_sync(kAllLanes, adds[half]);
    if (adds[half]) {
      const int at = n + __popc(of_half & ((1u << lane) - 1));
      const int64_t i = first + half * kWarp + lane;
      const int64_t row = call.list.rows == nullptr ? i : call.list.rows[i];
      chunk->rows[at] = static_cast<int32_t>(row);
      chunk->places[at] = kHasPlanes ? call.w.places[row] : 0;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) chunk->factors[at][t] = factors[half][t];
    }
    n += __popc(of_half);
  }
  __syncwarp();
  return n;
}

// Whether neuron i of the chunk has other scales than the one before it. Those of a block of the
// file share theirs, which are then read once.
template <int kSharing>
__device__ __forceinline__ bool has_new_scales(const int32_t* places, int i) {
  return i == 0 || places[i] / kSharing != places[i - 1] / kSharing;
}

template <TensorType kType, bool kHasPlanes, int kTokens>
struct AddChunk : OfWarps<64> {
  using Call = AddNeuronsCall;
  using Shared = Chunk<kTokens>;
  static constexpr int kNumber =
      kTokens == 1 ? op_number(OpFamily::kAddChunk, 2 * static_cast<int>(kType) + kHasPlanes)
                   : kNotResident;
  static constexpr const char* kName = "add_chunk";

  // unit: a part of the columns, of a chunk, of a group of tokens.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared* shared) {
    using Format = OctetFormat<kType>;

    constexpr int kInFlight = Format::kHasSub ? 4 : 8;  // neurons whose weights a thread waits for
    const DeviceNeurons& w = call.w;
    const int n_parts = static_cast<int>(div_up(w.n_cols, kWarpColumns));
    const int n_chunks = static_cast<int>(call.n_chunks);
    const int64_t number = unit / n_parts % n_chunks, first = number * kNeuronChunk;
    if (first >= call.n_active()) return;
    const int64_t token = int64_t{unit / n_parts / n_chunks} * kTokens;
    const int n = gather<kHasPlanes>(call, first, token, shared);
    const Chunk<kTokens>& chunk = *shared;
    const int64_t col = (unit % n_parts * kWarp + threadIdx.x % kWarp) * kOctet;
    if (col >= w.n_cols) return;
    float sums[kTokens][kOctet] = {};
    OctetScales scales = {};
    for (int begin = 0; begin < n; begin += kInFlight) {
      RawOctet<Format> octets[kInFlight] = {};
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
      if (token + t >= call.n_tokens) continue;
      const int64_t row = number * call.n_tokens + token + t;
      auto* to = reinterpret_cast<float4*>(call.partial + row * w.n_cols + col);
      to[0] = make_float4(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
      to[1] = make_float4(sums[t][4], sums[t][5], sums[t][6], sums[t][7]);
    }
  }
};

struct AddChunks : OfWarps<> {
  using Call = AddNeuronsCall;
  static constexpr int kNumber = op_number(OpFamily::kAddChunks);
  static constexpr const char* kName = "add_chunks";

  // unit: 32 columns of a token.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int64_t n_cols = call.w.n_cols;
    const int n_parts = static_cast<int>(div_up(n_cols, kWarp));
    const int64_t token = unit / n_parts;
    const int64_t col = unit % n_parts * kWarp + threadIdx.x % kWarp;
    if (col >= n_cols) return;
    const int64_t at = token * n_cols + col;
    const int64_t n_chunks = div_up(call.n_active(), kNeuronChunk);
    float sum = n_chunks == 0 ? 0.0f : call.partial[at];
#pragma unroll 8
    for (int64_t i = 1; i < n_chunks; ++i) {
      sum = __fadd_rn(sum, call.partial[i * call.n_tokens * n_cols + at]);
    }
    call.out[at] = sum;
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
