// Launches selections for others.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/select_bits.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError select_bits(DeviceStream* stream, const DeviceSelection& selection, uint32_t* bits,
                        int64_t stride) {
  const int64_t n_parts = div_up(selection.n_rows, SelectBits::kWords * kWarp);
  return launch_op<SelectBits>(stream, selection.n_tokens * n_parts, {selection, bits, stride});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
