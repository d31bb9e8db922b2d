// Which devices a worker could open here, for the coordinator, which knows nothing of CUDA.
#pragma once

#include <string>

namespace thermocline {

// JSON: {"devices": [{"name": "cuda:0", "description", "free_bytes", "total_bytes", "gbps"}],
// "no_more": why there is no further card}. The emulated device is the last one. gbps: of reading
// device memory, by the card's data sheet.
std::string ListDevices();

}  // namespace thermocline
