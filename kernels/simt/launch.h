// Launching a kernel on an emulated stream. No STL: files of kernels include it. What streams can
// do otherwise: stream.h.
#pragma once

#include <stddef.h>

#include "kernels/simt/error_code.h"
#include "kernels/simt/vector_types.h"

namespace thermocline::kernels::simt {

class Stream;

struct LaunchShape {
  const char* name;  // of the kernel, for errors; a literal
  dim3 grid, block;
  size_t dynamic_shared_bytes = 0;
  bool cooperative = false;  // all blocks are there at once, so that they may wait for each other
};

// A kernel and its arguments: calls `run` with a copy of `arguments` in every thread.
struct KernelCall {
  void (*run)(const void* arguments);
  const void* arguments;
  size_t n_bytes;
};

// Puts the call at the end of the stream and returns. An error says that the shape is bad, or what
// the device suffers from already (Device::error has its text).
ErrorCode launch_call(Stream* stream, const LaunchShape& shape, const KernelCall& call);

template <typename... Parameters, typename... Arguments>
ErrorCode launch(Stream* stream, const LaunchShape& shape, void (*kernel)(Parameters...),
                 const Arguments&... arguments) {
  const auto call = [kernel, ... values = static_cast<Parameters>(arguments)] {
    kernel(values...);
  };
  using Call = decltype(call);
  static_assert(__is_trivially_copyable(Call) && alignof(Call) <= 16);
  return launch_call(
      stream, shape,
      {[](const void* copy) { (*static_cast<Call*>(copy))(); }, &call, sizeof(call)});
}

}  // namespace thermocline::kernels::simt
