// The kinds of errors of an emulated device, without their text (error.h): kernels' files include
// it.
#pragma once

namespace thermocline::kernels::simt {

enum class ErrorCode {
  kOk,
  kBadLaunch,         // a shape that no card takes
  kDivergentBarrier,  // not all threads of the block reach the same __syncthreads
  kExitedLane,        // a shuffle names or reads a lane that has exited or is not there
  kWarpMismatch,      // lanes meet in different operations, or never meet
  kStalled,           // nothing but yields until the deadline, or a wait for a value without end
  kTrap,              // __trap()
  kRace,              // two threads, one of them writing, with nothing that orders them
  kOutOfMemory,       // as a card's driver may say of a launch
  kLost,              // the card itself is gone
  kInjected,          // a fault that a test asked for
};

}  // namespace thermocline::kernels::simt
