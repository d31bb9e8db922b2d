// The plain read of device_bench, as one function of each device. Nothing of CUDA is here.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_ops.h"

namespace thermocline::kernels {

inline constexpr int64_t kReadPieceBytes = 32 << 10;  // of a block of threads

// Reads n_pieces * kReadPieceBytes from `from`, each byte once; nothing is written to out (16
// bytes), though the compiler cannot know.
namespace emulated {
LaunchError read(DeviceStream* stream, const uint8_t* from, int64_t n_pieces, void* out);
}
namespace cuda {
LaunchError read(DeviceStream* stream, const uint8_t* from, int64_t n_pieces, void* out);
}

}  // namespace thermocline::kernels
