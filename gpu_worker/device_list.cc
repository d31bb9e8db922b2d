// Opens one device after another and asks it.
#include "gpu_worker/device_list.h"

#include "fmt/format.h"
#include "gpu_worker/device.h"
#include "nlohmann/json.hpp"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

absl::Status Add(const std::string& name, Json* devices) {
  absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(name);
  if (!device.ok()) return device.status();
  const absl::StatusOr<DeviceMemory> memory = (*device)->Memory();
  if (!memory.ok()) return memory.status();
  devices->push_back({{"name", name},
                      {"description", (*device)->description()},
                      {"free_bytes", memory->free_bytes},
                      {"total_bytes", memory->total_bytes},
                      {"gbps", (*device)->gbps()},
                      {"graph_node_bytes", (*device)->graph_node_bytes()}});
  return absl::OkStatus();
}

}  // namespace

std::string ListDevices() {
  Json devices = Json::array();
  absl::Status end;
  for (int32_t number = 0; end.ok(); ++number) {
    end = Add(fmt::format("cuda:{}", number), &devices);
  }
  Add("emulated", &devices).IgnoreError();  // can't fail
  return Json({{"devices", devices}, {"no_more", std::string(end.message())}}).dump();
}

}  // namespace thermocline
