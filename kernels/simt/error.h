// What can go wrong on an emulated device, as a value. What a caller makes of it is its own matter.
#pragma once

#include <string>

#include "kernels/simt/error_code.h"

namespace thermocline::kernels::simt {

struct Error {
  ErrorCode code = ErrorCode::kOk;
  std::string text;  // names the kernel, the block, the threads and the lines

  bool ok() const { return code == ErrorCode::kOk; }
};

}  // namespace thermocline::kernels::simt
