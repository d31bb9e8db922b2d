// The operations a GPU worker computes with, as one table of function pointers for each device:
// CUDA and the emulated one (kernels/simt) have the same sources. Every call puts work at the end
// of a stream (DeviceStream) and returns; pointers are of device memory unless they say otherwise.
// No allocation, no synchronization, and nothing of CUDA in this header.
//
// Numbers: the same inputs, shapes and plan give the same bits on one device: every sum has a fixed
// order, and no float is added to memory atomically. They are not the bits of the CPU's ops, whose
// order is another; each op says how far it may be from them. Integer parts (a block's dot product,
// the quantization of activations) are exact, as there.
#pragma once

#include <cstdint>

#include "common/exchange/exchange_memory.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/neurons.h"

namespace thermocline::kernels {

// 0, or the error's number in its device's terms: what launches return. Later errors show when the
// stream is synchronized.
using LaunchError = int;

// What a step of a program waits for.
enum class StepOrder : int32_t {
  kInGrid,   // all that came before
  kInBlock,  // the same, and all of it since the last kInGrid was done by this step's one block
  kBeside,   // what the step before it waits for
};

// An operation with its arguments, as the kernel that goes through a program reads it.
struct alignas(16) ProgramStep {
  int32_t op = 0;  // kernels/cuda/op.cuh numbers them
  StepOrder order = StepOrder::kInGrid;
  int32_t n_units = 0;   // of its work
  int32_t skew = 0;      // where the first unit goes: behind those that it is beside of
  int32_t is_small = 0;  // one block does all of it
  alignas(16) uint8_t call[224] = {};
};
static_assert(sizeof(ProgramStep) == 256);

// Operations that one kernel does, in their order, with barriers over its grid between them: so
// nothing is launched between one operation and the next. Filled by calls with a stream that has
// it; only those that a step of one token has can be in it.
struct DeviceProgram {
  ProgramStep* steps = nullptr;  // [max_steps], where the calls write
  int64_t max_steps = 0;
  int64_t n_steps = 0;
  int64_t first_beside = -1;  // steps from this one on do not depend on each other; -1: all do
  bool is_in_block = true;    // one block does all since the last barrier over the grid
  int64_t shared_bytes = 0;   // of a block, at most
};

// Where calls put their work: at the end of a stream, or of the program that it has.
struct DeviceStream {
  void* native = nullptr;            // a cudaStream_t, or a simt::Stream*
  DeviceProgram* program = nullptr;  // null: none
};

// As long as it lives, no operation that is called reads or writes what another of them writes: in
// a program they are done side by side.
class BesideEachOther {
 public:
  explicit BesideEachOther(DeviceStream* stream) : program_(stream->program) {
    if (program_ != nullptr) program_->first_beside = program_->n_steps;
  }
  ~BesideEachOther() {
    if (program_ != nullptr) program_->first_beside = -1;
  }
  BesideEachOther(const BesideEachOther&) = delete;
  BesideEachOther& operator=(const BesideEachOther&) = delete;

 private:
  DeviceProgram* const program_;
};

// int8 activations as ops.h has them: per 32 values scale = amax / 127, q rounded half to even.
struct DeviceRows {
  int8_t* q = nullptr;     // [n_tokens, stride], 16-byte aligned; stride a multiple of 32
  float* scale = nullptr;  // [n_tokens, stride / 32]
  int32_t* sum = nullptr;  // [n_tokens, stride / 32], of a block's q
  int64_t stride = 0;
};

// Rows of a matrix, ascending: rows[0 .. *n), *n <= max. rows null: all of them, in order.
struct RowList {
  const int32_t* rows = nullptr;
  const int32_t* n = nullptr;
  int64_t max = 0;
};

// A token's place, as in StepToken.
struct DeviceToken {
  int32_t slot;
  int32_t position;
};

enum class DeviceKvType { kF16, kQ8_0 };

// The KV cache of one layer: [n_slots, n_ctx, n_kv_heads, device_kv_row(d_head)] for k and for v,
// zeros behind the head's values. f16, or int8 with an f16 scale for each 32 values. Positions of
// n_ctx and more (the tail of a context) have no place in it: they are others' to keep.
struct DeviceKv {
  void* k = nullptr;
  void* v = nullptr;
  uint16_t* k_scale = nullptr;  // kQ8_0
  uint16_t* v_scale = nullptr;
  DeviceKvType type = DeviceKvType::kF16;
  int64_t n_ctx = 0;
  int32_t n_kv_heads = 0;
  int32_t d_head = 0;  // a multiple of 4, at most 256; k and v are 16-byte aligned
};

inline constexpr int64_t kMaxDeviceHead = 256;
inline constexpr bool device_has_head(int64_t d_head) {
  return d_head % 4 == 0 && d_head <= kMaxDeviceHead;
}
// Values that a head of d_head takes in the cache.
inline constexpr int64_t device_kv_row(int64_t d_head) { return (d_head + 31) / 32 * 32; }

// What `select` chooses: rows whose score, plus bias, is above the token's threshold. A NaN is.
struct DeviceSelection {
  const float* scores = nullptr;  // [n_tokens, stride]
  int64_t stride = 0;
  const float* bias = nullptr;       // [n_rows], or null
  bool is_magnitude = false;         // |score| is compared
  const uint8_t* classes = nullptr;  // [n_tokens], which threshold is a token's; null: the first
  float thresholds[3] = {};          // every score is above a NaN
  bool is_among_mask = false;  // only rows that the token's mask has; others may have any score
  int64_t n_tokens = 0;
  int64_t n_rows = 0;  // at most 2^20
};

// What an exchange needs to know of its step.
struct DeviceStep {
  uint64_t number;
  uint32_t arrivals;  // what every rank's counter was at before it, cyclic
};
enum ExchangeState : uint32_t { kExchangeFine = 0, kExchangeAborted = 1, kExchangeMismatched = 2 };

struct DeviceOps {
  const char* name;  // "cuda", "emulated"

  // x [n_tokens, x_stride] (16-byte aligned, x_stride a multiple of 4) -> out, n values a token (a
  // multiple of 32). The CPU's bits.
  LaunchError (*quantize)(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                          int64_t n, const DeviceRows& out);

  // out = x * (1 / sqrt(mean(x^2) + eps)) * weight, n values a token (a multiple of 32), all
  // 16-byte aligned; in f32 [n_tokens, n] (out null: not wanted), and in int8 (quantized.q null:
  // not wanted). Within 2 * ceil(n / 1024) + 10 roundings of the true value before quantization:
  // sums of squares have 4 * ceil(n / 1024) + 8 of them on their way, which the root halves.
  LaunchError (*rms_norm)(DeviceStream* stream, const float* x, const float* weight,
                          int64_t n_tokens, int64_t n, float eps, float* out,
                          const DeviceRows& quantized);

  // out[t * out_stride + row] = row . x_t, of the list's rows alone. Quantized types read x, float
  // types x_f32 [n_tokens, x_stride] (16-byte aligned, x_stride a multiple of 4). Terms of a block
  // as the CPU's, to the bit; their sum in another order: within (n_blocks + 5) * 2^-24 * sum
  // |term|.
  LaunchError (*matmul)(DeviceStream* stream, const DeviceMatrix& w, const RowList& list,
                        const DeviceRows& x, const float* x_f32, int64_t x_stride, int64_t n_tokens,
                        float* out, int64_t out_stride);

  // out[i] = act(gate[i]) * up[i] for n values a token, [n_tokens, stride]; act: max(x, 0), or x /
  // (1 + exp(-x)); relu_relu_mul takes max(x, 0) of up as well. up null: 1. mask [n_tokens, n]
  // (null: all): out is 0 where it is 0, whatever gate and up are. The CPU's bits. 16-byte aligned,
  // stride a multiple of 4; out may be gate or up. quantized (q null: not wanted): the same in
  // int8, n rounded up to 32 with zeros.
  LaunchError (*relu_mul)(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                          const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                          const DeviceRows& quantized);
  LaunchError (*silu_mul)(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                          const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                          const DeviceRows& quantized);
  LaunchError (*relu_relu_mul)(DeviceStream* stream, const float* gate, const float* up,
                               int64_t stride, const uint8_t* mask, int64_t n_tokens, int64_t n,
                               float* out, const DeviceRows& quantized);

  // out[i] = a[i] + b[i], n values (a multiple of 4), all 16-byte aligned. The CPU's bits.
  LaunchError (*add)(DeviceStream* stream, const float* a, const float* b, int64_t n, float* out);

  // Exchange `number` of a step of one token: leaves partial [n] (null: nothing to add) in the
  // segment, arrives, waits for the other ranks; then h[i] = ((h[i] + partial of rank 0) + partial
  // of rank 1) + ..., n a multiple of 4. The CPU's bits. Where it could not wait to the end, *state
  // becomes an ExchangeState and h is worthless; the launches that follow still end. All in device
  // memory but what `memory` points at, which is the host's, registered with the device. Whoever
  // sleeps until this rank arrives is for the host to wake. times (null: not wanted): as stamp's,
  // when this rank had arrived, and when all had.
  LaunchError (*exchange)(DeviceStream* stream, const ExchangeMemory& memory,
                          const DeviceStep* step, uint32_t number, const float* partial, float* h,
                          int64_t n, uint32_t* state, int64_t* times);

  // Which rows are chosen for any token. Writes the list in ascending order to rows [n_rows] and
  // its length to *n; mask [n_tokens, n_rows] says it for each token. counts (null: not wanted):
  // adds the mask's ones to [0], the list's length to [1]. One block.
  LaunchError (*select)(DeviceStream* stream, const DeviceSelection& selection, int32_t* rows,
                        int32_t* n, uint8_t* mask, uint64_t* counts);

  // The same choice as bits, for those who compute these rows elsewhere: bit row % 32 of bits[t *
  // stride + row / 32]; those behind the last row are 0. A mask does not count. bits may be the
  // host's memory, registered with the device: each word is written once.
  LaunchError (*select_bits)(DeviceStream* stream, const DeviceSelection& selection, uint32_t* bits,
                             int64_t stride);

  // out[t * n_cols + col] = sum over i of a[t * a_stride + i] * the weight of neuron list.rows[i],
  // i ascending in chunks of 64 from the first, chunks added in order: one f32 fma each, with the
  // weight as the file's blocks are dequantized, to the bit; a of 0 is skipped. Within (n + 2) *
  // 2^-24 * sum |term|. workspace: add_neurons_bytes(...), 16-byte aligned.
  LaunchError (*add_neurons)(DeviceStream* stream, const DeviceNeurons& w, const RowList& list,
                             const float* a, int64_t a_stride, int64_t n_tokens, float* out,
                             void* workspace);

  // out [end - begin, n_cols], 16-byte aligned: rows (neurons) [begin, end) in f16: the file's
  // values to the bit, rounded half to even; what is beyond f16 becomes +-65504, infinities too; a
  // NaN is a NaN. So off by at most 2^-11 of the value, or 2^-25. Of matrices at most 2^32 values.
  LaunchError (*dequantize)(DeviceStream* stream, const DeviceMatrix& w, int64_t begin, int64_t end,
                            uint16_t* out);
  LaunchError (*dequantize_neurons)(DeviceStream* stream, const DeviceNeurons& w, int64_t begin,
                                    int64_t end, uint16_t* out);
  // The same of n values a token of x [n_tokens, x_stride]; out [n_tokens, out_stride] has zeros
  // from n to the next multiple of 4. Both 16-byte aligned, strides multiples of 4.
  LaunchError (*to_f16)(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                        int64_t n, uint16_t* out, int64_t out_stride);

  // Rotates q [n_tokens, n_heads, d_head] in place and k [n_tokens, n_kv_heads, d_head], pairs (2i,
  // 2i+1) for i < n_rot / 2 by cos and sin [n_tokens, n_rot / 2] (made on the host in f64), and
  // puts k and v in the cache at each token's place. The CPU's bits: the rotation, and f16 (a NaN
  // is a NaN). kQ8_0: q as ops.h's quantize, in steps of amax / 127 (half to even); then that scale
  // is rounded to f16. No two tokens have one place. Of a token of the tail q is rotated, and
  // nothing is stored.
  LaunchError (*rope_store)(DeviceStream* stream, float* q, const float* k, const float* v,
                            const float* cos, const float* sin, int64_t n_rot,
                            const DeviceToken* tokens, int64_t n_tokens, int32_t n_heads,
                            const DeviceKv& kv);

  // out [n_tokens, n_heads, d_head]: each token's query attends to positions [max(0, position + 1 -
  // window), position] of its slot (window 0: all), also those that the same step's rope_store put
  // there; nothing else in the cache shows, NaNs neither. A token of the tail attends to all of
  // the cache; the window is 0 then. n_heads a multiple of n_kv_heads. max_position: at least the
  // largest that is attended to, known to the host. workspace: attend_bytes(...).
  // Tiles of kAttendTile positions at absolute places, each with its own (max, sum, o), are merged
  // in ascending order as ops.h's attend_merge has it, then o / sum. In a tile: score = (q . k, one
  // fma a dim, ascending) * scale; p = exp(score - max); p of positions 32 apart is added
  // ascending, then lanes 16, 8, 4, 2, 1 apart; o[d] = fma(p, v[d], o[d]) over 32 ascending
  // positions, eight such sums added ascending. So the bits of a token do not depend on the others
  // of its step. Within (2 * (d_head + 1 + 2 * (n_tiles + 1)) * max over positions of sum |q k
  // scale| + 8 * n_tiles + 90) * 2^-24 * sum p |v| / sum p of the result in real numbers. state
  // [n_tokens, n_heads, 2] (null: not wanted; 8-byte aligned): max and sum of exp(score - max) over
  // all that a query attends to. max is within (d_head + 1) * max over positions of sum |q k scale|
  // * 2^-24 of the largest score, sum * exp(max) relatively within half of the factor above.
  LaunchError (*attend)(DeviceStream* stream, const float* q, const DeviceToken* tokens,
                        int64_t n_tokens, int32_t n_heads, const DeviceKv& kv, float scale,
                        int64_t window, int64_t max_position, float* out, float* state,
                        void* workspace);

  // Adds the tail of a context to what attend left in out [n_tokens, n_heads, d_head] and state.
  // tail, at t * tail_stride + head * (2 + d_head): max, sum, o (sum of exp(score - max) * v, not
  // divided by the sum); 8-byte aligned, tail_stride and d_head even; it may be the host's memory,
  // registered with the device, and is read once. With a = sum * exp(max - m) and b = exp(tail max
  // - m), m the larger max: out = (out * a + tail o * b) / (a + tail sum * b), each sum one fma. A
  // tail sum of 0: out stays as it is, to the bit, whatever tail max and o are. Within (2 * |max -
  // tail max| + 12) * 2^-24 * (|out| * a + |tail o| * b) / (a + tail sum * b) of that in real
  // numbers: a difference is rounded in one exp (the other is 1), and an exp is within 2 roundings;
  // that, two products and the sum above the fraction, a product and the sum below, one division.
  LaunchError (*merge_tail)(DeviceStream* stream, const float* state, const float* tail,
                            int64_t tail_stride, int64_t n_tokens, int32_t n_heads, int32_t d_head,
                            float* out);

  // out[t * out_stride + i] = x[t * x_stride + i], n values a token. Both 16-byte aligned; n and
  // strides multiples of 4. out may be the host's memory, registered with the device: each 16 bytes
  // are written once, and those of a warp side by side.
  LaunchError (*copy)(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                      int64_t n, float* out, int64_t out_stride);

  // *ns becomes the device's own time at which all that came before is done. Of no fixed beginning;
  // cards count in steps of up to a microsecond.
  LaunchError (*stamp)(DeviceStream* stream, int64_t* ns);

  // All of a program, by one kernel: steps [n_steps] are what its calls wrote, in device memory;
  // barrier is 0. Its blocks wait for each other, so all of them are there at once. The same bits
  // as of the calls one by one. Of an empty program steps and barrier may be null.
  LaunchError (*run_program)(DeviceStream* stream, const DeviceProgram& program,
                             const ProgramStep* steps, uint32_t* barrier);

  // The k (at most 64, and n) largest of logits [n], n > 0: largest first, ties by lower index, NaN
  // and infinity below all, as samplers have them; values and indices [k], the latter counted from
  // `first`. And log_sum = log(sum(exp(logits))), within (n / 16384 +
  // 3 ln(n) + 21 + |log_sum|) * 2^-24. workspace: top_k_bytes(), 16-byte aligned.
  LaunchError (*top_k)(DeviceStream* stream, const float* logits, int64_t n, int32_t k,
                       int32_t first, float* values, int32_t* indices, float* log_sum,
                       void* workspace);
};

inline constexpr char kExchangeKernel[] = "exchange", kResidentKernel[] = "resident";  // names
inline constexpr int64_t kAttendTile = 256;                                            // positions
inline constexpr int64_t kMaxAttendPartials = 1 << 15;  // (max, sum, o), of a step of many tokens
inline constexpr int64_t kNeuronChunk = 64;             // active neurons
inline constexpr int64_t kMaxTopK = 64;
inline constexpr int64_t kTopKBlocks = 64;

// Bytes of device memory that calls need as workspace.
inline int64_t add_neurons_bytes(int64_t max_active, int64_t n_cols, int64_t n_tokens) {
  const int64_t n_chunks = (max_active + kNeuronChunk - 1) / kNeuronChunk;
  return n_chunks * n_cols * n_tokens * static_cast<int64_t>(sizeof(float));
}
// Enough for every step of up to n_tokens tokens, up to max_position, with any window. Tiles are
// merged from memory only where they are few; no prompt needs more than kMaxAttendPartials.
inline int64_t attend_bytes(int64_t n_tokens, int32_t n_heads, int32_t d_head,
                            int64_t max_position) {
  const int64_t of_token = n_heads * (max_position / kAttendTile + 1);
  const int64_t of_step =
      n_tokens * of_token < kMaxAttendPartials ? n_tokens * of_token : kMaxAttendPartials;
  const int64_t n_partials = of_token > of_step ? of_token : of_step;
  return n_partials * (d_head + 2) * static_cast<int64_t>(sizeof(float));
}
inline int64_t top_k_bytes() { return kTopKBlocks * (kMaxTopK * 8 + 8); }

const DeviceOps& emulated_ops();
#if THERMOCLINE_HAS_CUDA
const DeviceOps& cuda_ops();
#endif

}  // namespace thermocline::kernels
