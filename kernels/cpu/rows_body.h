// Products with single rows, and sketches, at any ISA level: 16 rows are read side by side, turned
// so that lane r belongs to row r, and multiplied as a packed group is (ops.h: rows_int8,
// sketch_int8). Included after a level's I32x16 and F32x16, with THERMOCLINE_LEVEL its name.
//
// A piece of 256 columns at a time goes through a buffer in the first-level cache; while it is
// computed, the same piece of the next 16 rows is on its way to the second. (Zen 4, 2 threads,
// Q4_0, k = 2048: 65 % of the plain read with 10 % of the rows, 95 % with all; without prefetch 39
// and 27 %, with prefetch to the first level 33 and 28 %.)
#include "kernels/cpu/row_list.h"
#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"
#include "kernels/row_streams.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

constexpr int kTileTokens = 4;

// A type and how its rows are split.
template <int kTypeIndex, int kLeadBits>
struct Form {
  static constexpr RowType kType = kRowTypes[kTypeIndex];
  static constexpr int kLead = kLeadBits;
  static constexpr RowStream kLeadStream = lead_stream(kType, kLead);
  static constexpr RowStream kRestStream = rest_stream(kType, kLead);
  static constexpr bool kIsSign = lead_is_sign(kType, kLead);
};

// What 16 rows have in one piece, turned. Dword d of a plane at [d].
struct TurnedPiece {
  alignas(64) uint32_t lead[4 * kPieceBlocks][16];  // planes one after another
  alignas(64) uint32_t rest[8 * kPieceBlocks][16];
  alignas(64) float scale[kPieceBlocks][16];
  alignas(64) float min[kPieceBlocks][16];      // with minimum
  alignas(64) float sub[2 * kPieceBlocks][16];  // two scales a block
};

template <RowStream kStream>
THERMOCLINE_INLINE void turn_quants(const uint8_t* const rows[16], int64_t offset, int64_t n_blocks,
                                    uint32_t (*out)[16]) {
  int64_t n_dwords = kStream.planes.bits * n_blocks;
  for (int64_t d = 0; d < n_dwords; d += 4) {  // may write up to 3 dwords more than there are
    I32x16 turned[4];
    transpose_rows(rows, offset + 4 * d, turned);
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) store_i32(turned[i], out[d + i]);
  }
}

THERMOCLINE_INLINE I32x16 dword_of_rows(const uint8_t* const rows[16], int64_t offset) {
  alignas(64) uint32_t dwords[16];
  THERMOCLINE_UNROLL
  for (int r = 0; r < 16; ++r) __builtin_memcpy(&dwords[r], rows[r] + offset, 4);
  return load_i32(dwords);
}

template <ScaleKind kKind>
THERMOCLINE_INLINE void turn_scales(const uint8_t* const rows[16], int64_t offset, int64_t n_blocks,
                                    TurnedPiece* piece) {
  I32x16 turned[4];
  transpose_rows(rows, offset, turned);
  if constexpr (kKind == ScaleKind::kOne) {
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      store(f16_half<0>(turned[i]), piece->scale[2 * i]);
      store(f16_half<1>(turned[i]), piece->scale[2 * i + 1]);
    }
  } else if constexpr (kKind == ScaleKind::kWithMinimum) {
    const I32x16 super = dword_of_rows(rows, offset + 2 * n_blocks);
    const F32x16 d = f16_half<0>(super), dmin = f16_half<1>(super);
    const auto four = [&]<int i>() {
      store(d * u8_byte<i>(turned[0]), piece->scale[i]);
      store(d * u8_byte<i>(turned[1]), piece->scale[i + 4]);
      store(dmin * u8_byte<i>(turned[2]), piece->min[i]);
      store(dmin * u8_byte<i>(turned[3]), piece->min[i + 4]);
    };
    four.template operator()<0>();
    four.template operator()<1>();
    four.template operator()<2>();
    four.template operator()<3>();
  } else {
    store(f16_half<0>(dword_of_rows(rows, offset + 2 * n_blocks)), piece->scale[0]);
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) {  // dword i: the two of block 2 i, then of 2 i + 1
      store(i8_byte<0>(turned[i]), piece->sub[4 * i]);
      store(i8_byte<1>(turned[i]), piece->sub[4 * i + 1]);
      store(i8_byte<2>(turned[i]), piece->sub[4 * i + 2]);
      store(i8_byte<3>(turned[i]), piece->sub[4 * i + 3]);
    }
  }
}

// The bits of chunk c that one plane has, or-ed into the quants; kFirst: these are zeros.
template <int kWidth, int kPosition, int c, bool kFirst>
THERMOCLINE_INLINE I32x16 plane_bits(I32x16 quants, const uint32_t (*plane)[16], int64_t b) {
  constexpr int kPerDword = 8 / kWidth;
  constexpr int kDword = kWidth == 4 ? c % 4 : c / kPerDword;
  constexpr int kShift = (kWidth == 4 ? c / 4 : c % kPerDword) * kWidth;
  constexpr int kMask = ((1 << kWidth) - 1) << kPosition;
  I32x16 x = load_i32(plane[b * kWidth + kDword]);
  if constexpr (kShift > kPosition) x = shift_right<kShift - kPosition>(x);
  if constexpr (kShift < kPosition) x = shift_left<kPosition - kShift>(x);
  if constexpr (kFirst) return kMask == 255 ? x : and_bytes(x, kMask);
  return or_bytes(quants, x, kMask);
}

// A stream's bits of chunk c, or-ed into the quants (kOnto) or alone. kDown: how far they are moved
// down, to bit 0 for a sketch.
template <RowStream kStream, int c, int kDown = 0, bool kOnto = false>
THERMOCLINE_INLINE I32x16 stream_bits(const uint32_t (*turned)[16], int64_t n_blocks, int64_t b,
                                      I32x16 quants = all_lanes_i32(0)) {
  constexpr Planes kPlanes = kStream.planes;
  const auto add = [&]<int p>() {
    if constexpr (p < kPlanes.n) {
      constexpr int kPosition = kPlanes.position[p] - kDown;
      quants = plane_bits < kPlanes.width[p], kPosition, c, !kOnto && p == 0 > (quants, turned, b);
      turned += n_blocks * kPlanes.width[p];
    }
  };
  add.template operator()<0>();
  add.template operator()<1>();
  add.template operator()<2>();
  return quants;
}

// The activations of T tokens in one block.
template <int T>
struct Tokens {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  int64_t q_stride, stride;
  THERMOCLINE_INLINE I32x16 four(int t, int c) const {
    int32_t bits;
    __builtin_memcpy(&bits, q + t * q_stride + 4 * c, sizeof(bits));
    return all_lanes_i32(bits);
  }
};

// Adds a block's products to acc.
template <class F, bool kSketch, int T>
struct BlockProduct {
  static constexpr int kBits = kSketch ? F::kLead : F::kType.bits;
  const TurnedPiece& piece;
  int64_t n_blocks;

  template <int c>
  THERMOCLINE_INLINE I32x16 chunk(int64_t b, F32x16 scale) const {
    if constexpr (kSketch) {
      return stream_bits<F::kLeadStream, c, F::kType.bits - F::kLead>(piece.lead, n_blocks, b);
    }
    const I32x16 rest = stream_bits<F::kRestStream, c>(piece.rest, n_blocks, b);
    if constexpr (F::kIsSign) {
      const I32x16 sign = stream_bits<F::kLeadStream, c>(piece.lead, n_blocks, b);
      return or_bytes(rest, flip_where_negative(sign, scale), 1 << (F::kType.bits - 1));
    }
    return stream_bits<F::kLeadStream, c, 0, true>(piece.lead, n_blocks, b, rest);
  }

  template <int first>
  THERMOCLINE_INLINE void add_chunks(int64_t b, const Tokens<T>& x, F32x16 scale,
                                     I32x16* sums) const {
    const auto add = [&]<int c>() {
      const I32x16 weights = chunk<c>(b, scale);
      THERMOCLINE_UNROLL
      for (int t = 0; t < T; ++t) sums[t] = add_dot<kBits>(sums[t], weights, x.four(t, c));
    };
    add.template operator()<first>();
    add.template operator()<first + 1>();
    add.template operator()<first + 2>();
    add.template operator()<first + 3>();
  }

  // What the integer of a block is: sums, less kTakenOff times the sum of the activations. Of a
  // sketch it is twice the middle values: of q .. q + 2^n - 1 that is 2 q + 2^n - 1; +-1 of a sign.
  static constexpr int kBitsBelow = F::kType.bits - F::kLead;
  static constexpr int kShift = !kSketch ? 0 : F::kIsSign ? 1 : kBitsBelow + 1;
  static constexpr int kTakenOff = !kSketch     ? F::kType.zero_point()
                                   : F::kIsSign ? 1
                                                : 2 * F::kType.zero_point() - (1 << kBitsBelow) + 1;
  static THERMOCLINE_INLINE I32x16 centred(I32x16 sum, I32x16 taken_off) {
    if constexpr (kShift > 0) sum = shift_left<kShift>(sum);
    return kTakenOff == 0 ? sum : sum - taken_off;
  }

  THERMOCLINE_INLINE void add(int64_t b, const Tokens<T>& x, F32x16* acc) const {
    constexpr ScaleKind kKind = F::kType.scales;
    constexpr bool kHasScale = !(kSketch && F::kIsSign);
    F32x16 scale = all_lanes(0.0f);
    if constexpr (kHasScale) scale = load(piece.scale[kKind == ScaleKind::kTwo ? 0 : b]);
    const F32x16 step = kSketch ? scale * all_lanes(0.5f) : scale;
    I32x16 first[T], second[T];
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) first[t] = second[t] = all_lanes_i32(0);
    add_chunks<0>(b, x, scale, first);
    add_chunks<4>(b, x, scale, kKind == ScaleKind::kTwo ? second : first);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) {
      const int32_t x_sum = x.sum[t * x.stride];
      const I32x16 taken_off = all_lanes_i32(kTakenOff * x_sum);
      const F32x16 x_scale = all_lanes(x.scale[t * x.stride]);
      if constexpr (kKind == ScaleKind::kTwo) {
        I32x16 of_first = all_lanes_i32(0);
        const I32x16 weights = all_lanes_i32(kTakenOff * 0x01010101);
        THERMOCLINE_UNROLL
        for (int c = 0; c < 4; ++c) of_first = add_dot<7>(of_first, weights, x.four(t, c));
        // Each product is below 2^24, exact in f32; a sketch's sum may pass it: rounded once.
        F32x16 integer = to_f32(centred(first[t], of_first)) * load(piece.sub[2 * b]);
        integer = fma(to_f32(centred(second[t], taken_off - of_first)), load(piece.sub[2 * b + 1]),
                      integer);
        acc[t] = fma(integer, step * x_scale, acc[t]);
      } else {
        const F32x16 integer = to_f32(centred(first[t], taken_off));
        acc[t] = fma(integer, kHasScale ? step * x_scale : x_scale, acc[t]);
      }
      if constexpr (kKind == ScaleKind::kWithMinimum) {
        const F32x16 minus_sum = all_lanes(-static_cast<float>(x_sum));
        acc[t] = fma(minus_sum, load(piece.min[b]) * x_scale, acc[t]);
      }
    }
  }
};

template <class F, bool kSketch, int T>
THERMOCLINE_INLINE void piece_tile(const TurnedPiece& piece, int64_t first_block, int64_t n_blocks,
                                   const QuantizedRows& x, int64_t token, float* out,
                                   int64_t out_stride, const RowsAhead& ahead) {
  const int64_t stride = x.stride / kBlockCols;
  Tokens<T> at = {x.q + token * x.stride + first_block * kBlockCols,
                  x.scale + token * stride + first_block, x.sum + token * stride + first_block,
                  x.stride, stride};
  const BlockProduct<F, kSketch, T> product = {piece, n_blocks};
  F32x16 acc[T];
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    acc[t] = first_block == 0 ? all_lanes(0.0f) : load(out + (token + t) * out_stride);
  }
  for (int64_t b = 0; b < n_blocks; ++b) {
    ahead.prefetch(2 * b);
    ahead.prefetch(2 * b + 1);
    product.add(b, at, acc);
    at.q += kBlockCols;
    ++at.scale;
    ++at.sum;
  }
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) store(acc[t], out + (token + t) * out_stride);
}

template <class F, bool kSketch>
void multiply_piece(const TurnedPiece& piece, int64_t first_block, int64_t n_blocks,
                    const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride,
                    RowsAhead ahead) {
  int64_t t = 0;
  for (; t + kTileTokens <= n_tokens; t += kTileTokens) {
    piece_tile<F, kSketch, kTileTokens>(piece, first_block, n_blocks, x, t, out, out_stride, ahead);
    ahead = RowsAhead();
  }
  for (; t < n_tokens; ++t) {
    piece_tile<F, kSketch, 1>(piece, first_block, n_blocks, x, t, out, out_stride, ahead);
    ahead = RowsAhead();
  }
}

template <class F, bool kSketch>
void multiply_rows(const RowMatrix& w, const RowList& list, const QuantizedRows& x,
                   int64_t n_tokens, float* out, int64_t out_stride) {
  constexpr bool kReadsLead = F::kLead > 0, kReadsRest = !kSketch;
  const int64_t n_blocks = w.n_cols / kBlockCols;
  const uint8_t *lead[16], *rest[16], *next_lead[16], *next_rest[16];
  if (kReadsLead) list.pointers(0, w.lead, w.lead_bytes, next_lead);
  if (kReadsRest) list.pointers(0, w.rest, w.rest_bytes, next_rest);
  TurnedPiece piece;
  for (int64_t i = 0; i < list.n; i += 16) {
    const int64_t next = i + 16 < list.n ? i + 16 : i;
    for (int r = 0; r < 16; ++r) {
      if (kReadsLead) lead[r] = next_lead[r];
      if (kReadsRest) rest[r] = next_rest[r];
    }
    if (kReadsLead) list.pointers(next, w.lead, w.lead_bytes, next_lead);
    if (kReadsRest) list.pointers(next, w.rest, w.rest_bytes, next_rest);
    int64_t lead_at = 0, rest_at = 0;
    for (int64_t b = 0; b < n_blocks; b += kPieceBlocks) {
      const int64_t n = n_blocks - b < kPieceBlocks ? n_blocks - b : kPieceBlocks;
      RowsAhead ahead;
      if constexpr (kReadsLead) {
        turn_quants<F::kLeadStream>(lead, lead_at, n, piece.lead);
        if constexpr (F::kLeadStream.has_scales) {
          turn_scales<F::kType.scales>(lead, lead_at + F::kLeadStream.quant_bytes(n), n, &piece);
        }
        ahead.lead = next_lead;
        ahead.lead_at = lead_at;
        ahead.lead_bytes = F::kLeadStream.piece_bytes(n);
        lead_at += F::kLeadStream.piece_bytes(n);
      }
      if constexpr (kReadsRest) {
        turn_quants<F::kRestStream>(rest, rest_at, n, piece.rest);
        if constexpr (F::kRestStream.has_scales) {
          turn_scales<F::kType.scales>(rest, rest_at + F::kRestStream.quant_bytes(n), n, &piece);
        }
        ahead.rest = next_rest;
        ahead.rest_at = rest_at;
        ahead.rest_bytes = F::kRestStream.piece_bytes(n);
        rest_at += F::kRestStream.piece_bytes(n);
      }
      multiply_piece<F, kSketch>(piece, b, n, x, n_tokens, out + i, out_stride, ahead);
    }
    if constexpr (kSketch && F::kIsSign) {
      float scale[16];
      for (int r = 0; r < 16; ++r) {
        scale[r] = w.row_scale[list.first + (i + r < list.n ? i + r : list.n - 1)];
      }
      for (int64_t t = 0; t < n_tokens; ++t) {
        store(load(out + i + t * out_stride) * load(scale), out + i + t * out_stride);
      }
    }
  }
}

template <bool kSketch>
void multiply_any(const RowMatrix& w, const RowList& list, const QuantizedRows& x, int64_t n_tokens,
                  float* out, int64_t out_stride) {
  const auto with = [&]<int kTypeIndex>() {
    switch (w.lead_bits) {
      case 0:
        if constexpr (!kSketch) {
          return multiply_rows<Form<kTypeIndex, 0>, false>(w, list, x, n_tokens, out, out_stride);
        }
        __builtin_trap();  // rows that are not split have no sketch
      case 1:
        return multiply_rows<Form<kTypeIndex, 1>, kSketch>(w, list, x, n_tokens, out, out_stride);
      case 2:
        return multiply_rows<Form<kTypeIndex, 2>, kSketch>(w, list, x, n_tokens, out, out_stride);
      default:
        return multiply_rows<Form<kTypeIndex, 3>, kSketch>(w, list, x, n_tokens, out, out_stride);
    }
  };
  if (list.n == 0) return;
  switch (w.type) {
    case kRowTypes[0].type:
      return with.template operator()<0>();
    case kRowTypes[1].type:
      return with.template operator()<1>();
    case kRowTypes[2].type:
      return with.template operator()<2>();
    case kRowTypes[3].type:
      return with.template operator()<3>();
    case kRowTypes[4].type:
      return with.template operator()<4>();
    default:
      __builtin_trap();  // float rows take rows_f32
  }
}

}  // namespace

void rows_int8(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const QuantizedRows& x,
               int64_t n_tokens, float* out, int64_t out_stride) {
  multiply_any<false>(w, {rows, 0, n_rows}, x, n_tokens, out, out_stride);
}

void sketch_int8(const RowMatrix& w, int64_t row_begin, int64_t row_end, const QuantizedRows& x,
                 int64_t n_tokens, float* out, int64_t out_stride) {
  multiply_any<true>(w, {nullptr, row_begin, row_end - row_begin}, x, n_tokens, out, out_stride);
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
