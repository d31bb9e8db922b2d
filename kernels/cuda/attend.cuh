// Attention over the KV cache: scores, softmax and weighted values of one tile at a time, and the
// merge of tiles. FlashAttention (arXiv 2205.14135) with tiles at absolute places, whose results
// are merged in ascending order: the order of every sum follows from a token's own positions, so
// that neither its neighbours in a step nor who computes which tile shows in the bits. Reads of the
// cache: kv.cuh. What others made of positions that are not in it: merge_tail.cuh.
#pragma once

#include "kernels/cuda/exp.cuh"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kTile = static_cast<int>(kAttendTile);
constexpr int kChunk = 32;  // positions of a tile that a warp computes
constexpr int kAttendWarps = kTile / kChunk;
static_assert(kAttendWarps == kBlockWarps);
constexpr float kOutside = -1.0f;  // stands for the weight of a position that is not attended to

struct AttendCall {
  const float* q;             // [n_tokens, n_heads, d_head]
  const DeviceToken* tokens;  // [n_tokens]
  int64_t n_tokens;
  int32_t n_heads;
  DeviceKv kv;
  int32_t n_slabs;  // of a head
  float scale;
  int64_t window;
  float* out;               // [n_tokens, n_heads, d_head]
  float* state;             // [n_tokens, n_heads, 2]: max, sum; null: not wanted
  float* partial;           // [n_tokens, n_heads, n_tiles, 2 + d_head]: max, sum, o; null: none
  int32_t n_tiles;          // that a token's positions are in, at most
  int32_t n_splits;         // blocks that share the tiles
  int32_t n_groups;         // that the query heads of a KV head are cut in
  int32_t heads_per_block;  // of a group; fewer in the last
  int32_t tokens_per_block;
};

// The positions [begin, end) that a token attends to.
struct Span {
  int begin, end;
};
__device__ __forceinline__ Span span_of(const DeviceToken& token, const AttendCall& call) {
  const int64_t end = min(int64_t{token.position} + 1, call.kv.n_ctx), window = call.window;
  return {static_cast<int>(window == 0 || window >= end ? 0 : end - window), static_cast<int>(end)};
}

// How the state of the tiles so far (max `before`) and another tile (max `other`) are added:
// fma(other's, fresh, state's * old), as ops.h's attend_merge.
struct Factors {
  float old, fresh;
};
__device__ __forceinline__ Factors merge_factors(float before, float other, float both) {
  return {exp_f32(__fsub_rn(before, both)), exp_f32(__fsub_rn(other, both))};
}
__device__ __forceinline__ float merged(float state, float other, Factors factors) {
  return __fmaf_rn(other, factors.fresh, __fmul_rn(state, factors.old));
}

// Rows, each of which is one query head of one token, of one slot and one KV head.
struct Rows {
  int64_t token;  // the first
  int n_tokens, n_heads;
  int head, kv_head;  // the first of the query heads; theirs
  int slot;
  Span least, most;  // positions that all of them attend to; that any does

  __device__ int n() const { return n_tokens * n_heads; }
};

template <DeviceKvType kType, int kRows>
struct BlockMemory {
  static constexpr int kStaged = kSlab * SlabFormat<kType>::kRowBytes;
  static constexpr int kSums = kRows * kWarp * static_cast<int>(sizeof(float));
  static constexpr int kSlabBytes = kStaged > kSums ? kStaged : kSums;

  alignas(16) uint8_t slab[kAttendWarps][kSlabBytes];  // then a chunk's o, [kRows, 32]
  alignas(16) float q[(kRows < 8 ? kRows : 8) * 256];  // [kRows, n_slabs * kSlab]
  alignas(16) float weight[kRows][kTile];              // scores, then exp(score - max)
  Rows rows;
  int64_t place[kRows];  // of each row
  Span span[kRows];
  float largest[kRows], sum[kRows];  // of the tiles so far
  Factors factors[kRows];
};

template <DeviceKvType kType, int kRows>
class AttendBlock {
 public:
  __device__ AttendBlock(const AttendCall& call, BlockMemory<kType, kRows>& memory)
      : call_(call), memory_(memory) {}

  // Query heads [head, head + n_heads) of tokens [token, token + n_tokens), all of one slot; every
  // n_splits-th tile of theirs from the split-th on.
  __device__ void run(int64_t token, int n_tokens, int head, int n_heads, int kv_head, int split) {
    const DeviceToken first = call_.tokens[token];
    const Span all = span_of(first, call_);
    Rows rows = {token, n_tokens, n_heads, head, kv_head, first.slot, all, all};
#pragma unroll 1
    for (int i = 1; i < n_tokens; ++i) {
      const Span span = span_of(call_.tokens[token + i], call_);
      rows.least = {max(rows.least.begin, span.begin), min(rows.least.end, span.end)};
      rows.most = {min(rows.most.begin, span.begin), max(rows.most.end, span.end)};
    }
    load(rows);
    __syncthreads();
    // Without partials, one block has all tiles.
    const int last = (rows.most.end - 1) / kTile;
    n_rows_ = rows.n();
    for (int tile = rows.most.begin / kTile + split; tile <= last; tile += call_.n_splits) {
      run_tile(tile);
    }
  }

 private:
  using Stream = SlabStream<kType>;
  static constexpr int kPair = kRows < 2 ? kRows : 2;  // rows that one branch decides on

  __device__ __forceinline__ void load(const Rows& rows) {
    if (threadIdx.x == 0) memory_.rows = rows;
    const int d_head = call_.kv.d_head, lane = threadIdx.x % kWarp;
    const int d_row = call_.n_slabs * kSlab;
    for (int r = threadIdx.x / kWarp; r < rows.n(); r += kAttendWarps) {
      const int64_t token = rows.token + r / rows.n_heads;
      const int64_t place = token * call_.n_heads + rows.head + r % rows.n_heads;
      if (lane == 0) {
        memory_.place[r] = place;
        memory_.span[r] = span_of(call_.tokens[token], call_);
      }
#pragma unroll 1
      for (int dim = lane; dim < d_row; dim += kWarp) {
        memory_.q[r * d_row + dim] = dim < d_head ? call_.q[place * d_head + dim] : 0.0f;
      }
    }
  }

  __device__ __forceinline__ void run_tile(int tile) {
    const int chunk = tile * kTile + static_cast<int>(threadIdx.x) / kWarp * kChunk;
    const Rows& rows = memory_.rows;
    // Positions of the chunk that some row attends to; those before a window are read, too.
    const int n = rows.most.begin < chunk + kChunk ? min(rows.most.end - chunk, kChunk) : 0;
    const bool whole = rows.least.begin <= chunk && chunk + kChunk <= rows.least.end;
    uint8_t* const slab = memory_.slab[threadIdx.x / kWarp];
    const DeviceKv& kv = call_.kv;
    const int64_t row = kv_row(kv, {rows.slot, chunk}, rows.kv_head);
    if (n > 0) scores(Stream(kv, call_.n_slabs, kv.k, kv.k_scale, row, n, slab), slab);
    Stream v(kv, call_.n_slabs, kv.v, kv.v_scale, row, n, slab);
    v.start();  // on its way during the softmax
    __syncthreads();
    for (int r = threadIdx.x / kWarp; r < n_rows_; r += kAttendWarps) softmax(tile, r);
    __syncthreads();
    outputs(tile, v, slab, n > 0, whole);
  }

  // weight[r][a lane's position] = q_r . k * scale.
  __device__ __forceinline__ void scores(Stream k, uint8_t* slab) {
    const int n_slabs = call_.n_slabs, lane = threadIdx.x % kWarp;
    float dot[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) dot[r] = 0;
    k.start();
    for (int slab0 = 0; slab0 < n_slabs; slab0 += Stream::kAhead) {
#pragma unroll
      for (int ring = 0; ring < Stream::kAhead; ++ring) {
        if (slab0 + ring == n_slabs) continue;
        k.stage(ring);
        k.fetch(ring);
#pragma unroll 1
        for (int dim = 0; dim < kSlab; dim += 8) {
          float values[8];
          read_eight<kType>(slab, lane, dim, values);
          add_dots(values, (slab0 + ring) * kSlab + dim, dot);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) memory_.weight[r][threadIdx.x] = __fmul_rn(dot[r], call_.scale);
  }
  __device__ __forceinline__ void add_dots(const float* values, int dim, float* dot) {
#pragma unroll
    for (int pair = 0; pair < kRows; pair += kPair) {
      if (pair >= n_rows_) continue;
#pragma unroll
      for (int r = pair; r < pair + kPair; ++r) {
        const float* q = memory_.q + r * call_.n_slabs * kSlab + dim;
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          const float4 q4 = *reinterpret_cast<const float4*>(q + i);
          dot[r] = __fmaf_rn(q4.x, values[i], dot[r]);
          dot[r] = __fmaf_rn(q4.y, values[i + 1], dot[r]);
          dot[r] = __fmaf_rn(q4.z, values[i + 2], dot[r]);
          dot[r] = __fmaf_rn(q4.w, values[i + 3], dot[r]);
        }
      }
    }
  }

  __device__ __forceinline__ bool row_has(int tile, int r) const {
    const Span span = memory_.span[r];
    return span.begin < (tile + 1) * kTile && span.end > tile * kTile;
  }

  // A warp has a row: weight[r] from scores to weights, its max and sum in this tile.
  __device__ void softmax(int tile, int r) {
    if (!row_has(tile, r)) return;
    const int lane = threadIdx.x % kWarp;
    const Span span = memory_.span[r];
    float* const weight = memory_.weight[r];
    float largest = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < kTile; i += kWarp) {
      const int position = tile * kTile + i + lane;
      if (span.begin <= position && position < span.end) {
        largest = fmaxf(largest, weight[i + lane]);
      }
    }
    largest = warp_max(largest);
#pragma unroll 2
    for (int i = 0; i < kTile; i += kWarp) {
      const int position = tile * kTile + i + lane;
      const bool inside = span.begin <= position && position < span.end;
      const float p = exp_f32(__fsub_rn(weight[i + lane], largest));
      weight[i + lane] = inside ? p : kOutside;
      if (inside) sum = __fadd_rn(sum, p);
    }
    sum = warp_sum(sum);
    if (lane == 0) note_sum(tile, r, largest, sum);
  }
  __device__ void note_sum(int tile, int r, float largest, float sum) {
    if (call_.partial != nullptr) {
      float* const partial = partial_of(tile, r);
      partial[0] = largest;
      partial[1] = sum;
      return;
    }
    if (tile != memory_.span[r].begin / kTile) {
      const float both = fmaxf(memory_.largest[r], largest);
      const Factors factors = merge_factors(memory_.largest[r], largest, both);
      memory_.factors[r] = factors;
      sum = merged(memory_.sum[r], sum, factors);
      largest = both;
    }
    memory_.largest[r] = largest;
    memory_.sum[r] = sum;
    const bool is_last = tile == (memory_.span[r].end - 1) / kTile;
    if (is_last && call_.state != nullptr) {
      reinterpret_cast<float2*>(call_.state)[memory_.place[r]] = make_float2(largest, sum);
    }
  }
  __device__ float* partial_of(int tile, int r) const {
    const int place = tile - memory_.span[r].begin / kTile;
    return call_.partial + (memory_.place[r] * call_.n_tiles + place) * (2 + call_.kv.d_head);
  }

  // The tile's o: each warp adds over its chunk, a lane for each dim; then chunks are added.
  __device__ __forceinline__ void outputs(int tile, Stream& v, uint8_t* slab, bool any,
                                          bool whole) {
    const int n_slabs = call_.n_slabs;
    for (int slab0 = 0; slab0 < n_slabs; slab0 += Stream::kAhead) {
#pragma unroll
      for (int ring = 0; ring < Stream::kAhead; ++ring) {
        if (slab0 + ring == n_slabs) continue;
        float o[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) o[r] = 0;
        if (any) {
          v.stage(ring);
          v.fetch(ring);
          if (whole) {
            add_values<false>(slab, o);
          } else {
            add_values<true>(slab, o);
          }
        }
        __syncwarp();
        float* const mine = reinterpret_cast<float*>(slab) + threadIdx.x % kWarp;
#pragma unroll
        for (int r = 0; r < kRows; ++r) mine[r * kWarp] = o[r];
        __syncthreads();
        add_chunks(tile, slab0 + ring);
        __syncthreads();
      }
    }
  }
  // kMasked: some row does not attend to some position of the chunk.
  template <bool kMasked>
  __device__ __forceinline__ void add_values(const uint8_t* slab, float* o) {
    const int lane = threadIdx.x % kWarp, chunk = threadIdx.x / kWarp * kChunk;
#pragma unroll 1
    for (int i = 0; i < kChunk; i += 4) {
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = read_value<kType>(slab, i + j, lane);
#pragma unroll
      for (int pair = 0; pair < kRows; pair += kPair) {
        if (pair >= n_rows_) continue;
#pragma unroll
        for (int r = pair; r < pair + kPair; ++r) {
          const float4 p4 = *reinterpret_cast<const float4*>(&memory_.weight[r][chunk + i]);
          const float p[4] = {p4.x, p4.y, p4.z, p4.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            if (!kMasked || !(p[j] < 0)) o[r] = __fmaf_rn(p[j], v[j], o[r]);
          }
        }
      }
    }
  }
  // Of one slab of dims, to the partial or into out.
  __device__ __forceinline__ void add_chunks(int tile, int slab) {
    for (int i = threadIdx.x; i < kRows * kWarp; i += kBlockThreads) {
      const int r = i / kWarp, dim = slab * kSlab + i % kWarp;
      if (r >= n_rows_ || dim >= call_.kv.d_head || !row_has(tile, r)) continue;
      float o = reinterpret_cast<const float*>(memory_.slab[0])[i];
#pragma unroll
      for (int chunk = 1; chunk < kAttendWarps; ++chunk) {
        o = __fadd_rn(o, reinterpret_cast<const float*>(memory_.slab[chunk])[i]);
      }
      if (call_.partial != nullptr) {
        partial_of(tile, r)[2 + dim] = o;
        continue;
      }
      const Span span = memory_.span[r];
      float* const out = call_.out + memory_.place[r] * call_.kv.d_head + dim;
      if (tile != span.begin / kTile) o = merged(*out, o, memory_.factors[r]);
      if (tile == (span.end - 1) / kTile) o = __fdiv_rn(o, memory_.sum[r]);
      *out = o;
    }
  }

  const AttendCall& call_;
  BlockMemory<kType, kRows>& memory_;
  int n_rows_ = 0;
};

template <DeviceKvType kType, int kRows>
struct AttendTiles : OfBlocks {
  using Call = AttendCall;
  using Shared = BlockMemory<kType, kRows>;
  static constexpr int kMinBlocks = 2;
  static constexpr int kNumber =
      op_number(OpFamily::kAttendTile, 32 * static_cast<int>(kType) + kRows);
  static constexpr const char* kName = "attend";

  // unit: a few tokens, and a KV head's group of query heads, and which tiles.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared* shared) {
    const int n_parts =
        (static_cast<int>(call.n_tokens) + call.tokens_per_block - 1) / call.tokens_per_block;
    const int n_groups = call.kv.n_kv_heads * call.n_groups;
    const int group = unit / n_parts % n_groups, split = unit / n_parts / n_groups;
    const int kv_head = group / call.n_groups, heads_of_kv = call.n_heads / call.kv.n_kv_heads;
    const int head_in_kv = group % call.n_groups * call.heads_per_block;
    const int n_heads = min(call.heads_per_block, heads_of_kv - head_in_kv);
    // The last tokens of a prompt have the most to do: they come first.
    const int64_t begin = int64_t{n_parts - 1 - unit % n_parts} * call.tokens_per_block;
    const int64_t end = min(begin + call.tokens_per_block, call.n_tokens);
    AttendBlock<kType, kRows> block(call, *shared);
    for (int64_t token = begin, next; token < end; token = next) {
      next = token + 1;
      while (next < end && call.tokens[next].slot == call.tokens[token].slot) ++next;
      block.run(token, static_cast<int>(next - token), kv_head * heads_of_kv + head_in_kv, n_heads,
                kv_head, split);
    }
  }
};

struct MergeTiles : OfWarps<kBlockThreads> {
  using Call = AttendCall;
  static constexpr int kNumber = op_number(OpFamily::kMergeTiles);
  static constexpr const char* kName = "merge_tiles";

  // unit: 32 dims of one row's tiles; lane i works out the factors of tile 32 n + i.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int lane = threadIdx.x % kWarp, n_slabs = call.n_slabs;
    const int64_t row = unit / n_slabs;
    if (row >= call.n_tokens * call.n_heads) return;
    const int dim = static_cast<int>(unit % n_slabs) * kSlab + lane;
    const bool is_inside = dim < call.kv.d_head;
    const int stride = 2 + call.kv.d_head;
    const Span span = span_of(call.tokens[row / call.n_heads], call);
    const int n_tiles = (span.end - 1) / kTile - span.begin / kTile + 1;
    const float* const partial = call.partial + row * call.n_tiles * stride;

    float largest = -INFINITY, sum = 0, o = 0;  // of the tiles so far
    for (int tile0 = 0; tile0 < n_tiles; tile0 += kWarp) {
      const bool has_tile = tile0 + lane < n_tiles;
      const float* const mine = partial + int64_t{tile0 + lane} * stride;
      const float tile_max = has_tile ? mine[0] : -INFINITY;
      const float tile_sum = has_tile ? mine[1] : 0.0f;
      float both = fmaxf(largest, tile_max);  // then of all tiles up to the lane's
      for (int apart = 1; apart < kWarp; apart *= 2) {
        const float below = __shfl_up_sync(kAllLanes, both, apart);
        if (lane >= apart) both = fmaxf(both, below);
      }
      const float below = __shfl_up_sync(kAllLanes, both, 1);
      const Factors factors = merge_factors(lane == 0 ? largest : below, tile_max, both);
#pragma unroll 8
      for (int i = 0; i < min(kWarp, n_tiles - tile0); ++i) {
        const float other = is_inside ? partial[int64_t{tile0 + i} * stride + 2 + dim] : 0.0f;
        const float other_sum = __shfl_sync(kAllLanes, tile_sum, i);
        const Factors at = {__shfl_sync(kAllLanes, factors.old, i),
                            __shfl_sync(kAllLanes, factors.fresh, i)};
        const bool is_first = tile0 + i == 0;
        sum = is_first ? other_sum : merged(sum, other_sum, at);
        o = is_first ? other : merged(o, other, at);
      }
      largest = __shfl_sync(kAllLanes, both, kWarp - 1);
    }
    if (is_inside) call.out[row * call.kv.d_head + dim] = __fdiv_rn(o, sum);
    if (dim == 0 && call.state != nullptr) {
      reinterpret_cast<float2*>(call.state)[row] = make_float2(largest, sum);
    }
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
