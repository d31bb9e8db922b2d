// A device's clock in terms of the host's, whose zeros differ and which drift apart by microseconds
// a second.
#pragma once

#include <algorithm>
#include <cstdint>

namespace thermocline {

class DeviceClock {
 public:
  // The device's clock was at first_ns after the host's was at before_ns, and at last_ns before the
  // host's was at after_ns: so the offset lies between two bounds. It is kept where it does, and
  // moved no further than to the nearest that does.
  void Observe(int64_t before_ns, int64_t first_ns, int64_t last_ns, int64_t after_ns) {
    const int64_t low = before_ns - first_ns, high = after_ns - last_ns;
    // Crossed: by less than the device's clock can tell, or as it drifts.
    const bool takes_middle = is_new_ || low > high;
    offset_ns_ = takes_middle ? low + (high - low) / 2 : std::clamp(offset_ns_, low, high);
    is_new_ = false;
  }
  int64_t ToHost(int64_t device_ns) const { return device_ns + offset_ns_; }

 private:
  bool is_new_ = true;
  int64_t offset_ns_ = 0;
};

}  // namespace thermocline
