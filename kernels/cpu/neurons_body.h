// What active neurons add to the output, at any ISA level (ops.h: add_rows, add_blocks). Included
// after a level's I32x16 and F32x16, with THERMOCLINE_LEVEL its name.
//
// A tile of 128 columns of the output stays in registers while some rows are added to it. Integers
// are summed as f32, which is exact: 32 products of at most 128 * 127 stay below 2^24.
#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"
#include "kernels/neurons.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

constexpr int kTileVectors = kLineColumns / 16;
constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kBlocksAhead = 2;                // of a few active rows each
constexpr int64_t kSpanColumns = 16 * kBlockCols;  // whose scales make a vector

// Columns 16 v .. 16 v + 15 of a tile of a row, as f32: kFirst is the tile's first column.
template <TensorType kType>
struct RowTile;

template <int kBits>
struct QuantTile {
  static constexpr Planes kPlanes = planes_of(kBits, 0);
  I32x16 nibbles, high;

  THERMOCLINE_INLINE QuantTile(const uint8_t* row, int64_t n_cols, int64_t first)
      : nibbles(load_i32(row + first / 128 * 64)), high(nibbles) {
    const uint8_t* plane = row + neuron_plane_bytes(4, n_cols);
    if constexpr (kBits == 5) {
      high = shift_right_by(load_i32(plane + first / 512 * 64), static_cast<int>(first % 512 / 16));
    }
    if constexpr (kBits == 6) {
      high = shift_right_by(load_i32(plane + first / 256 * 64),
                            static_cast<int>(first % 256 / 16 * 2));
    }
  }
  template <int v>
  THERMOCLINE_INLINE F32x16 values() const {
    if constexpr (kBits == 4) {
      return nibble_values(shift_right<4 * v>(nibbles));
    } else {
      constexpr int kWidth = kBits - 4;
      const I32x16 low = and_lanes(shift_right<4 * v>(nibbles), 15);
      const I32x16 top = and_lanes(shift_right<kWidth * v>(high), (1 << kWidth) - 1);
      return to_f32(low + shift_left<4>(top) - all_lanes_i32(kBits == 6 ? 32 : 0));
    }
  }
};

// Q4_K's nibbles have no zero point, Q4_0's have 8.
struct PlainNibbles : QuantTile<4> {
  using QuantTile<4>::QuantTile;
  template <int v>
  THERMOCLINE_INLINE F32x16 values() const {
    return to_f32(and_lanes(shift_right<4 * v>(nibbles), 15));
  }
};

// Values that lie in the order of columns.
template <class Load>
struct PlainTile {
  const uint8_t* at;
  THERMOCLINE_INLINE PlainTile(const uint8_t* row, int64_t, int64_t first)
      : at(row + first * Load::kBytes) {}
  template <int v>
  THERMOCLINE_INLINE F32x16 values() const {
    return Load::load16(at + 16 * v * Load::kBytes);
  }
};
struct LoadBytes {
  static constexpr int kBytes = 1;
  static THERMOCLINE_INLINE F32x16 load16(const uint8_t* p) { return quant_bytes(p); }
};
struct LoadF32 {
  static constexpr int kBytes = 4;
  static THERMOCLINE_INLINE F32x16 load16(const uint8_t* p) {
    return load(reinterpret_cast<const float*>(p));
  }
};
struct LoadF16 {
  static constexpr int kBytes = 2;
  static THERMOCLINE_INLINE F32x16 load16(const uint8_t* p) {
    return load(reinterpret_cast<const uint16_t*>(p));
  }
};
struct LoadBf16 {
  static constexpr int kBytes = 2;
  static THERMOCLINE_INLINE F32x16 load16(const uint8_t* p) { return bf16_values(p); }
};

template <>
struct RowTile<TensorType::kQ8_0> : PlainTile<LoadBytes> {
  using PlainTile::PlainTile;
};
template <>
struct RowTile<TensorType::kQ4_0> : QuantTile<4> {
  using QuantTile::QuantTile;
};
template <>
struct RowTile<TensorType::kQ4_K> : PlainNibbles {
  using PlainNibbles::PlainNibbles;
};
template <>
struct RowTile<TensorType::kQ5_K> : QuantTile<5> {
  using QuantTile::QuantTile;
};
template <>
struct RowTile<TensorType::kQ6_K> : QuantTile<6> {
  using QuantTile::QuantTile;
};
template <>
struct RowTile<TensorType::kF32> : PlainTile<LoadF32> {
  using PlainTile::PlainTile;
};
template <>
struct RowTile<TensorType::kF16> : PlainTile<LoadF16> {
  using PlainTile::PlainTile;
};
template <>
struct RowTile<TensorType::kBF16> : PlainTile<LoadBf16> {
  using PlainTile::PlainTile;
};

// Calls f.operator()<v>() for v = 0 .. kVectors - 1.
template <int kVectors, class F>
THERMOCLINE_INLINE void each_vector(F&& f) {
  if constexpr (kVectors > 0) f.template operator()<0>();
  if constexpr (kVectors > 1) f.template operator()<1>();
  if constexpr (kVectors > 2) f.template operator()<2>();
  if constexpr (kVectors > 3) f.template operator()<3>();
  if constexpr (kVectors > 4) f.template operator()<4>();
  if constexpr (kVectors > 5) f.template operator()<5>();
  if constexpr (kVectors > 6) f.template operator()<6>();
  if constexpr (kVectors > 7) f.template operator()<7>();
}

// Calls f.operator()<n>(first column) for the tiles of [begin, end), n vectors of 16 each.
template <class F>
THERMOCLINE_INLINE void each_tile(int64_t begin, int64_t end, F&& f) {
  int64_t first = begin;
  for (; first + kLineColumns <= end; first += kLineColumns) {
    f.template operator()<kTileVectors>(first);
  }
  switch ((end - first) / kBlockCols) {
    case 1:
      return f.template operator()<2>(first);
    case 2:
      return f.template operator()<4>(first);
    case 3:
      return f.template operator()<6>(first);
    default:
      return;
  }
}

// The rows that come next, into the second-level cache.
THERMOCLINE_INLINE void prefetch_row(const uint8_t* from, const uint8_t* end) {
  for (; from < end; from += 64) __builtin_prefetch(from, 0, 2);
}

// Bytes of a row's columns [begin, end) in its first plane: all that is worth asking for early.
template <TensorType kType>
constexpr int64_t first_plane_bytes(int64_t columns) {
  for (const RowType& type : kRowTypes) {
    if (type.type == kType) return columns * planes_of(type.bits, 0).width[0] / 8;
  }
  return columns * (kType == TensorType::kF32 ? 4 : 2);
}

// Rows that come next. They are asked for a tile at a time while others are computed: memory takes
// few requests at once, and a burst of them waits for itself.
struct NextRows {
  const uint8_t* at[kRowsAtOnce];
  int64_t n = 0;

  template <TensorType kType>
  THERMOCLINE_INLINE void prefetch_tile(int64_t first) const {
    constexpr int64_t kTileBytes = first_plane_bytes<kType>(kLineColumns);
    for (int64_t r = 0; r < n; ++r) {
      const uint8_t* tile = at[r] + first_plane_bytes<kType>(first);
      prefetch_row(tile, tile + kTileBytes);
    }
  }
};

// Adds rows to columns [begin, end), which lie in one span of kSpanColumns. factors[r]: what the
// span's 16 blocks of row r are multiplied with.
template <TensorType kType>
void add_span(const uint8_t* const rows[kRowsAtOnce], int64_t n_rows,
              const float factors[kRowsAtOnce][16], const NextRows& next, int64_t n_cols,
              int64_t begin, int64_t end, float* out) {
  each_tile(begin, end, [&]<int kVectors>(int64_t first) {
    next.prefetch_tile<kType>(first);
    const int64_t first_block = first % kSpanColumns / kBlockCols;
    F32x16 sum[kTileVectors];
    each_vector<kVectors>([&]<int v>() { sum[v] = load(out + first + 16 * v); });
    for (int64_t r = 0; r < n_rows; ++r) {
      const RowTile<kType> tile(rows[r], n_cols, first);
      const float* factor = factors[r] + first_block;
      each_vector<kVectors>([&]<int v>() {
        sum[v] = fma(all_lanes(factor[v / 2]), tile.template values<v>(), sum[v]);
      });
    }
    each_vector<kVectors>([&]<int v>() { store(sum[v], out + first + 16 * v); });
  });
}

template <TensorType kType>
void add_rows_of(const NeuronMatrix& w, const int32_t* rows, const float* a, int64_t n,
                 int64_t col_begin, int64_t col_end, float* out) {
  constexpr bool kIsFloat =
      kType == TensorType::kF32 || kType == TensorType::kF16 || kType == TensorType::kBF16;
  int64_t scales_at = 0;
  if constexpr (!kIsFloat) {
    scales_at = neuron_quant_bytes(planes_of(kType == TensorType::kQ8_0 ? 8 : 4, 0), w.n_cols);
  }
  for (int64_t i = 0; i < n; i += kRowsAtOnce) {
    const int64_t n_rows = n - i < kRowsAtOnce ? n - i : kRowsAtOnce;
    NextRows next;
    for (int64_t r = i + kRowsAtOnce; r < n && r < i + 2 * kRowsAtOnce; ++r) {
      const uint8_t* row = w.rows + rows[r] * w.row_bytes;
      next.at[next.n++] = row;
      if constexpr (!kIsFloat) {
        prefetch_row(row + scales_at + col_begin / 16, row + scales_at + col_end / 16);
      }
    }
    const uint8_t* at[kRowsAtOnce];
    for (int64_t r = 0; r < n_rows; ++r) at[r] = w.rows + rows[i + r] * w.row_bytes;
    for (int64_t span = col_begin / kSpanColumns * kSpanColumns; span < col_end;
         span += kSpanColumns) {
      float factors[kRowsAtOnce][16];
      for (int64_t r = 0; r < n_rows; ++r) {
        F32x16 factor = all_lanes(a[i + r]);
        if constexpr (!kIsFloat) {  // 32 bytes at a multiple of 32: the row is padded to 64
          const uint8_t* scales = at[r] + scales_at + span / 16;
          factor = factor * load(reinterpret_cast<const uint16_t*>(scales));
        }
        store(factor, factors[r]);
      }
      const int64_t end = span + kSpanColumns;
      add_span<kType>(at, n_rows, factors, next, w.n_cols, span < col_begin ? col_begin : span,
                      end < col_end ? end : col_end, out);
    }
  }
}

// A column's scales in a block of 32 neurons.
template <ScaleKind kKind>
THERMOCLINE_INLINE F32x16 add_scaled(const uint8_t* plane, int64_t n_cols, int64_t col,
                                     const ActiveBlock& block, F32x16 first, F32x16 second,
                                     F32x16 sum) {
  const F32x16 x_scale = all_lanes(block.scale);
  if constexpr (kKind == ScaleKind::kOne) {
    return fma(first, load(reinterpret_cast<const uint16_t*>(plane) + col) * x_scale, sum);
  } else if constexpr (kKind == ScaleKind::kWithMinimum) {
    const F32x16 d = load(reinterpret_cast<const uint16_t*>(plane + 2 * n_cols) + col);
    const F32x16 dmin = load(reinterpret_cast<const uint16_t*>(plane + 4 * n_cols) + col);
    sum = fma(first, d * u8_values(plane + col) * x_scale, sum);
    const F32x16 x_sum = all_lanes(-static_cast<float>(block.sum));
    return fma(x_sum, dmin * u8_values(plane + n_cols + col) * x_scale, sum);
  } else {
    const F32x16 d = load(reinterpret_cast<const uint16_t*>(plane + 2 * n_cols) + col);
    const F32x16 low = first * i8_values(plane + col);
    return fma(fma(second, i8_values(plane + n_cols + col), low), d * x_scale, sum);
  }
}

template <TensorType kType, ScaleKind kKind>
void add_blocks_of(const NeuronMatrix& w, const ActiveBlock* blocks, int64_t n_blocks,
                   const int32_t* rows, const int8_t* q, int64_t col_begin, int64_t col_end,
                   float* out) {
  constexpr int kSums = kKind == ScaleKind::kTwo ? 2 : 1;
  for (int64_t b = 0; b < n_blocks; ++b) {
    const ActiveBlock& block = blocks[b];
    const uint8_t* plane = w.planes + block.block * w.plane_bytes;
    NextRows next;
    if (b + kBlocksAhead < n_blocks) {
      const ActiveBlock& ahead = blocks[b + kBlocksAhead];
      for (int32_t i = ahead.begin; i < ahead.end && next.n < kRowsAtOnce; ++i) {
        next.at[next.n++] = w.rows + rows[i] * w.row_bytes;
      }
    }
    each_tile(col_begin, col_end, [&]<int kVectors>(int64_t first) {
      next.prefetch_tile<kType>(first);
      F32x16 sums[kSums][kTileVectors];
      each_vector<kVectors>([&]<int v>() {
        for (int s = 0; s < kSums; ++s) sums[s][v] = all_lanes(0.0f);
      });
      const auto add = [&](int s, int32_t begin, int32_t end) THERMOCLINE_INLINE_LAMBDA {
        for (int32_t i = begin; i < end; ++i) {
          const RowTile<kType> tile(w.rows + rows[i] * w.row_bytes, w.n_cols, first);
          const F32x16 by = all_lanes(static_cast<float>(q[i]));
          each_vector<kVectors>(
              [&]<int v>() { sums[s][v] = fma(by, tile.template values<v>(), sums[s][v]); });
        }
      };
      if constexpr (kSums == 2) {
        add(0, block.begin, block.middle);
        add(1, block.middle, block.end);
      } else {
        add(0, block.begin, block.end);
      }
      each_vector<kVectors>([&]<int v>() {
        float* at = out + first + 16 * v;
        store(add_scaled<kKind>(plane, w.n_cols, first + 16 * v, block, sums[0][v],
                                sums[kSums - 1][v], load(at)),
              at);
      });
    });
  }
}

}  // namespace

void add_rows(const NeuronMatrix& w, const int32_t* rows, const float* a, int64_t n,
              int64_t col_begin, int64_t col_end, float* out) {
  switch (w.type) {
    case TensorType::kF32:
      return add_rows_of<TensorType::kF32>(w, rows, a, n, col_begin, col_end, out);
    case TensorType::kF16:
      return add_rows_of<TensorType::kF16>(w, rows, a, n, col_begin, col_end, out);
    case TensorType::kBF16:
      return add_rows_of<TensorType::kBF16>(w, rows, a, n, col_begin, col_end, out);
    case TensorType::kQ8_0:
      return add_rows_of<TensorType::kQ8_0>(w, rows, a, n, col_begin, col_end, out);
    case TensorType::kQ4_0:
      return add_rows_of<TensorType::kQ4_0>(w, rows, a, n, col_begin, col_end, out);
    default:
      __builtin_trap();  // is_transposed_type
  }
}

void add_blocks(const NeuronMatrix& w, const ActiveBlock* blocks, int64_t n_blocks,
                const int32_t* rows, const int8_t* q, int64_t col_begin, int64_t col_end,
                float* out) {
  const auto with = [&]<TensorType kType, ScaleKind kKind>() {
    add_blocks_of<kType, kKind>(w, blocks, n_blocks, rows, q, col_begin, col_end, out);
  };
  switch (w.type) {
    case TensorType::kQ8_0:
      return with.template operator()<TensorType::kQ8_0, ScaleKind::kOne>();
    case TensorType::kQ4_0:
      return with.template operator()<TensorType::kQ4_0, ScaleKind::kOne>();
    case TensorType::kQ4_K:
      return with.template operator()<TensorType::kQ4_K, ScaleKind::kWithMinimum>();
    case TensorType::kQ5_K:
      return with.template operator()<TensorType::kQ5_K, ScaleKind::kWithMinimum>();
    case TensorType::kQ6_K:
      return with.template operator()<TensorType::kQ6_K, ScaleKind::kTwo>();
    default:
      __builtin_trap();  // float types take add_rows
  }
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
