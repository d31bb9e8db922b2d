// 16 rows of a RowMatrix at a time: where they lie, and asking memory for them early. No STL;
// internal linkage throughout.
#pragma once

#include <cstdint>

#include "kernels/cpu/unroll.h"

namespace thermocline::kernels {
namespace {

// Into the second-level cache: the first one has no room for what comes next and what is computed.
THERMOCLINE_INLINE void prefetch_rows(const uint8_t* const rows[16], int64_t offset,
                                      int64_t n_bytes) {
  for (int r = 0; r < 16; ++r) {
    for (int64_t at = 0; at < n_bytes; at += 64) __builtin_prefetch(rows[r] + offset + at, 0, 2);
  }
}

// The same piece of the next 16 rows, in one or two streams. They are asked for row by row while
// others are computed: memory takes few requests at once, and a burst of them waits for itself.
struct RowsAhead {
  const uint8_t* const* lead = nullptr;  // [16]
  const uint8_t* const* rest = nullptr;  // [16]
  int64_t lead_at = 0, lead_bytes = 0, rest_at = 0, rest_bytes = 0;

  THERMOCLINE_INLINE void prefetch(int64_t row) const {
    if (lead != nullptr) prefetch_bytes(lead[row] + lead_at, lead_bytes);
    if (rest != nullptr) prefetch_bytes(rest[row] + rest_at, rest_bytes);
  }
  static THERMOCLINE_INLINE void prefetch_bytes(const uint8_t* from, int64_t n) {
    for (int64_t at = 0; at < n; at += 64) __builtin_prefetch(from + at, 0, 2);
  }
};

// 16 rows by number; those past the last repeat it. Null: rows `first`, `first` + 1, ...
struct RowList {
  const int32_t* rows;
  int64_t first, n;
  THERMOCLINE_INLINE void pointers(int64_t i, const uint8_t* data, int64_t row_bytes,
                                   const uint8_t* out[16]) const {
    for (int64_t r = 0; r < 16; ++r) {
      const int64_t at = i + r < n ? i + r : n - 1;
      out[r] = data + (rows == nullptr ? first + at : rows[at]) * row_bytes;
    }
  }
};

}  // namespace
}  // namespace thermocline::kernels
