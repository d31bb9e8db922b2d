// Looks for weights that are no numbers. Does not read quants: any integer is a weight.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/gguf/tensor_type.h"

namespace thermocline {

// The index of the first value (for quantized types: of the first value of the first block whose
// scale or minimum) that is NaN or infinite; -1 when all are finite. `blocks` holds whole blocks of
// a computed type, no alignment needed.
int64_t FirstNotFinite(TensorType type, absl::Span<const uint8_t> blocks);

}  // namespace thermocline
