// Launches selections of rows.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/select.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError select(DeviceStream* stream, const DeviceSelection& selection, int32_t* rows,
                   int32_t* n, uint8_t* mask, uint64_t* counts) {
  // By itself it takes the largest block there is.
  if (stream->program == nullptr) {
    return launch_op<Select<32>>(stream, 1, {selection, rows, n, mask, counts});
  }
  return launch_op<Select<kBlockWarps>>(stream, 1, {selection, rows, n, mask, counts});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
