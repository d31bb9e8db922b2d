// The version that all processes of a fleet must share.
#pragma once

namespace thermocline {
inline constexpr char kVersion[] = "0.1.0";
}  // namespace thermocline
