// The leads of a matrix alone, which is what a sketch of it reads: from file rows of any type.
// Where whole rows are kept too, rows.h splits them in place.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/rows.h"

namespace thermocline::kernels {

// A sketch of a matrix of this type. A float type has no lead: it is quantized to Q8_0 first
// (scale = amax / 127 as f16, quants rounded half to even). Pointers are null.
RowMatrix sketch_layout(TensorType file_type, int64_t n_rows, int64_t n_cols, int lead_bits);

// Memory that leads and row scales take, and where they lie in it; data is 64-byte aligned.
int64_t sketch_bytes(const RowMatrix& sketch);
void place_sketch(uint8_t* data, RowMatrix* sketch);

// Packs rows of a file, one after another; has what it needs for one row. One for each thread.
class SketchPacker {
 public:
  SketchPacker(const RowMatrix& sketch, TensorType file_type);
  void Pack(int64_t row, const uint8_t* file_row);  // all columns of it

 private:
  const RowMatrix sketch_;
  const TensorType file_type_;
  std::vector<float> values_;           // [n_cols], of a float row
  std::vector<uint8_t> blocks_, rest_;  // of one row: Q8_0, and what is not the lead
};

}  // namespace thermocline::kernels
