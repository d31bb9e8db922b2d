// Tiles of weights, and activations, in f16: what a matrix product on tensor cores reads. Every
// store of 32 bytes or more fills whole sectors.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/matrix_block.cuh"
#include "kernels/cuda/neuron_octet.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 128;
constexpr int kNeuronThreads = 64;
constexpr int kNeurons = 16;  // of a block; they mostly share scales
constexpr int kQuad = 4;
constexpr float kLargestHalf = 65504.0f;

__device__ __forceinline__ float into_range(float x) {  // a NaN stays
  return x > kLargestHalf ? kLargestHalf : x < -kLargestHalf ? -kLargestHalf : x;
}
__device__ __forceinline__ unsigned pack_two(float x, float y) {
  const __half2 two = __floats2half2_rn(into_range(x), into_range(y));
  return __half_as_ushort(__low2half(two)) |
         static_cast<unsigned>(__half_as_ushort(__high2half(two))) << 16;
}
__device__ __forceinline__ uint4 pack_eight(const float* values) {
  return make_uint4(pack_two(values[0], values[1]), pack_two(values[2], values[3]),
                    pack_two(values[4], values[5]), pack_two(values[6], values[7]));
}

// Values [8 * piece, 8 * piece + 8) of a block.
template <TensorType kType>
__device__ __forceinline__ uint4 unpack_piece(const Block& block, int piece) {
  using Format = OctetFormat<kType>;
  constexpr unsigned kFlip = kType == TensorType::kQ8_0 ? 0x80808080u : 0;  // i8 to u8
  float scale = block.scale;
  if constexpr (kType == TensorType::kQ6_K) {  // of 11 and 8 bits: exact
    scale = __fmul_rn(scale, static_cast<float>(piece < 2 ? block.scale0 : block.scale1));
  }
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const unsigned word = static_cast<unsigned>(block.q[2 * piece + i / 4]) ^ kFlip;
    const float quant = byte_at(word, i % 4, Format::kZero);
    values[i] = Format::kHasMin ? __fmaf_rn(scale, quant, -block.min) : __fmul_rn(scale, quant);
  }
  return pack_eight(values);
}

__device__ __forceinline__ uint4 from_other_lane(const uint4& x) {
  return make_uint4(__shfl_xor_sync(kAllLanes, x.x, 1), __shfl_xor_sync(kAllLanes, x.y, 1),
                    __shfl_xor_sync(kAllLanes, x.z, 1), __shfl_xor_sync(kAllLanes, x.w, 1));
}

// A thread unpacks a block of 32 values. Two lanes side by side then exchange halves of theirs: the
// even one stores pieces 0 and 2 of both blocks, the odd one 1 and 3, 32 bytes together.
template <TensorType kType>
__global__ void __launch_bounds__(kThreads)
    dequantize_blocks(DeviceMatrix w, int64_t begin, unsigned n, uint4* out) {
  const unsigned at = blockIdx.x * kThreads + threadIdx.x;  // of the tile's n blocks
  const auto n_blocks = static_cast<unsigned>(w.n_cols / 32);
  const unsigned from = at < n ? at : n - 1;
  const Block block = load_block<kType>(w, begin + from / n_blocks, from % n_blocks);
  uint4 pieces[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pieces[i] = unpack_piece<kType>(block, i);
  const bool is_odd = at % 2 != 0;
  const uint4 first = from_other_lane(is_odd ? pieces[0] : pieces[1]);
  const uint4 second = from_other_lane(is_odd ? pieces[2] : pieces[3]);
  const unsigned even = at - (is_odd ? 1 : 0);
  uint4* to = out + int64_t{even} * 4 + (is_odd ? 1 : 0);
  if (even < n) {
    to[0] = is_odd ? first : pieces[0];
    to[2] = is_odd ? second : pieces[2];
  }
  if (even + 1 < n) {
    to[4] = is_odd ? pieces[1] : first;
    to[6] = is_odd ? pieces[3] : second;
  }
}

// Eight values a thread, of n of them.
template <TensorType kType>
__global__ void __launch_bounds__(kThreads)
    dequantize_floats(const uint4* values, int64_t n, uint4* out) {
  constexpr int kWords = kType == TensorType::kF32 ? 2 : 1;  // of 16 bytes
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= n / 8) return;
  float eight[8];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    unpack_floats<kType>(__ldg(values + at * kWords + i), eight + 4 * i);
  }
  out[at] = pack_eight(eight);
}

// A thread has 8 columns of the block's neurons. Grid: groups of neurons, parts of the columns.
template <TensorType kType, bool kHasPlanes>
__global__ void __launch_bounds__(kNeuronThreads)
    dequantize_octets(DeviceNeurons w, int64_t begin, int64_t end, uint16_t* out) {
  using Format = OctetFormat<kType>;
  constexpr int kInFlight = kHasPlanes ? 4 : 8;  // neurons whose weights a thread waits for
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kNeuronThreads + threadIdx.x) * kOctet;
  if (col >= w.n_cols) return;
  const int64_t first = begin + static_cast<int64_t>(blockIdx.x) * kNeurons;
  const int64_t last = min(first + kNeurons, end) - 1;
  OctetScales scales = {};
  int group = -1;  // of neurons that share scales, the last one read
  for (int64_t row = first; row <= last; row += kInFlight) {
    RawOctet<Format> octets[kInFlight];
    bool has_new_scales[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t from = min(row + u, last);  // past the end: the last one again, unused
      load_quants(w, from, col, &octets[u]);
      if constexpr (!Format::kIsFloat) {
        const int place = kHasPlanes ? __ldg(w.places + from) : 0;
        has_new_scales[u] = !kHasPlanes || place / Format::kSharing != group;
        group = place / Format::kSharing;
        if (has_new_scales[u]) load_scales<Format, kHasPlanes>(w, from, place, col, &octets[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (row + u > last) continue;
      float weights[kOctet];
      if constexpr (Format::kIsFloat) {
        unpack_floats(octets[u], weights);
      } else {
        if (has_new_scales[u]) unpack_scales<Format, kHasPlanes>(octets[u], &scales);
        unpack_quants(octets[u], scales, weights);
      }
      *reinterpret_cast<uint4*>(out + (row + u - begin) * w.n_cols + col) = pack_eight(weights);
    }
  }
}

// Grid: tokens, parts of a row.
__global__ void __launch_bounds__(kThreads)
    to_f16_kernel(const float* x, int64_t x_stride, int64_t n, uint16_t* out, int64_t out_stride) {
  const int64_t token = blockIdx.x;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kQuad;
  if (first >= n) return;
  const float4 four = *reinterpret_cast<const float4*>(x + token * x_stride + first);
  const float values[kQuad] = {four.x, first + 1 < n ? four.y : 0.0f, first + 2 < n ? four.z : 0.0f,
                               first + 3 < n ? four.w : 0.0f};
  *reinterpret_cast<uint2*>(out + token * out_stride + first) =
      make_uint2(pack_two(values[0], values[1]), pack_two(values[2], values[3]));
}

template <TensorType kType>
LaunchError launch_blocks(DeviceStream* stream, const DeviceMatrix& w, int64_t begin, int64_t end,
                          uint16_t* out) {
  const int64_t n = (end - begin) * w.n_blocks();
  return LAUNCH(stream, static_cast<unsigned>(div_up(n, kThreads)), kThreads, 0,
                dequantize_blocks<kType>, w, begin, static_cast<unsigned>(n),
                reinterpret_cast<uint4*>(out));
}

template <TensorType kType>
LaunchError launch_floats(DeviceStream* stream, const DeviceMatrix& w, int64_t begin, int64_t end,
                          uint16_t* out) {
  constexpr int kBytes = kType == TensorType::kF32 ? 4 : 2;
  const int64_t n = (end - begin) * w.n_cols;
  const uint8_t* values = w.quants + begin * w.n_cols * kBytes;
  return LAUNCH(stream, static_cast<unsigned>(div_up(n / 8, kThreads)), kThreads, 0,
                dequantize_floats<kType>, reinterpret_cast<const uint4*>(values), n,
                reinterpret_cast<uint4*>(out));
}

template <TensorType kType, bool kHasPlanes>
LaunchError launch_octets(DeviceStream* stream, const DeviceNeurons& w, int64_t begin, int64_t end,
                          uint16_t* out) {
  const dim3 grid(static_cast<unsigned>(div_up(end - begin, kNeurons)),
                  static_cast<unsigned>(div_up(w.n_cols, kNeuronThreads * kOctet)));
  return LAUNCH(stream, grid, kNeuronThreads, 0, (dequantize_octets<kType, kHasPlanes>), w, begin,
                end, out);
}

}  // namespace

LaunchError dequantize(DeviceStream* stream, const DeviceMatrix& w, int64_t begin, int64_t end,
                       uint16_t* out) {
  if (begin == end || w.n_cols == 0) return 0;
  switch (w.type) {
    case TensorType::kF32:
      return launch_floats<TensorType::kF32>(stream, w, begin, end, out);
    case TensorType::kF16:
      return launch_floats<TensorType::kF16>(stream, w, begin, end, out);
    case TensorType::kBF16:
      return launch_floats<TensorType::kBF16>(stream, w, begin, end, out);
    case TensorType::kQ8_0:
      return launch_blocks<TensorType::kQ8_0>(stream, w, begin, end, out);
    case TensorType::kQ4_0:
      return launch_blocks<TensorType::kQ4_0>(stream, w, begin, end, out);
    case TensorType::kQ4_K:
      return launch_blocks<TensorType::kQ4_K>(stream, w, begin, end, out);
    case TensorType::kQ5_K:
      return launch_blocks<TensorType::kQ5_K>(stream, w, begin, end, out);
    case TensorType::kQ6_K:
      return launch_blocks<TensorType::kQ6_K>(stream, w, begin, end, out);
  }
  return 0;  // every type is above
}

LaunchError dequantize_neurons(DeviceStream* stream, const DeviceNeurons& w, int64_t begin,
                               int64_t end, uint16_t* out) {
  if (begin == end || w.n_cols == 0) return 0;
  switch (w.type) {
    case TensorType::kF32:
      return launch_octets<TensorType::kF32, false>(stream, w, begin, end, out);
    case TensorType::kF16:
      return launch_octets<TensorType::kF16, false>(stream, w, begin, end, out);
    case TensorType::kBF16:
      return launch_octets<TensorType::kBF16, false>(stream, w, begin, end, out);
    case TensorType::kQ8_0:
      return w.has_planes ? launch_octets<TensorType::kQ8_0, true>(stream, w, begin, end, out)
                          : launch_octets<TensorType::kQ8_0, false>(stream, w, begin, end, out);
    case TensorType::kQ4_0:
      return w.has_planes ? launch_octets<TensorType::kQ4_0, true>(stream, w, begin, end, out)
                          : launch_octets<TensorType::kQ4_0, false>(stream, w, begin, end, out);
    case TensorType::kQ4_K:
      return launch_octets<TensorType::kQ4_K, true>(stream, w, begin, end, out);
    case TensorType::kQ5_K:
      return launch_octets<TensorType::kQ5_K, true>(stream, w, begin, end, out);
    case TensorType::kQ6_K:
      return launch_octets<TensorType::kQ6_K, true>(stream, w, begin, end, out);
  }
  return 0;  // every type is above
}

LaunchError to_f16(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                   int64_t n, uint16_t* out, int64_t out_stride) {
  if (n_tokens == 0 || n == 0) return 0;
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(n, kThreads * kQuad)));
  return LAUNCH(stream, grid, kThreads, 0, to_f16_kernel, x, x_stride, n, out, out_stride);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
