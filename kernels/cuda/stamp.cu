// Launches stamps.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/stamp.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError stamp(DeviceStream* stream, int64_t* ns) { return launch_op<Stamp>(stream, 1, {ns}); }

}  // namespace thermocline::kernels::SIMT_DEVICE
