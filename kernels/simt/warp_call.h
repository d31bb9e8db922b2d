// How the lanes of a warp meet, under CUDA's functions for it (warp.h). No STL, and nothing that
// needs the flags of an ISA level: kernels and runtime share it.
#pragma once

#include <stdint.h>

#include "kernels/simt/threads.h"

namespace thermocline::kernels::simt {

enum class WarpOp : uint8_t {
  kSync,
  kBallot,
  kAny,
  kAll,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor
};

// What one lane brings to the others.
struct WarpCall {
  WarpOp op;
  uint32_t mask;  // lanes that take part
  uint64_t value;
  int lane;   // shuffles: source lane, delta or lane mask
  int width;  // shuffles: lanes of a segment, a power of two
  Place where;
};

// Waits for the lanes of the mask. A shuffle's value, or the lanes whose value is not 0.
uint64_t warp_call(const WarpCall& call);

}  // namespace thermocline::kernels::simt
