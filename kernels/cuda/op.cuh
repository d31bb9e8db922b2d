// Operations of a decode step, in a form that two kernels can do: one of its own (run_op, here), or
// one that goes through a whole program (resident.cu). An op is a struct, OfWarps or OfBlocks, with
//   Call       its arguments, plain data
//   Shared     the shared memory that a unit of its work takes; Nothing
//   kOfWarp    whether a warp does a unit by itself, with no barrier of the block, or a block
//   kThreads   of a block of run_op; ops of blocks have kBlockThreads, if they are for programs
//   kMinBlocks on a multiprocessor: what __launch_bounds__ is told
//   kNumber    in programs; kNotResident
//   kName      for errors
//   run(const Call&, int unit, Shared*)  by all threads that do the unit
// Data that may change during a step is not read with __ldg: a program's kernel has written it.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;

struct Nothing {};

// What most ops are, of either kind.
template <int kThreadsOfBlock = 128>
struct OfWarps {
  using Shared = Nothing;
  static constexpr bool kOfWarp = true;
  static constexpr int kThreads = kThreadsOfBlock, kMinBlocks = 1;
};
struct OfBlocks {
  static constexpr bool kOfWarp = false;
  static constexpr int kThreads = kBlockThreads, kMinBlocks = 1;
};

// The numbers of ops in programs: a family, and a form in it (types of weights, and the like).
enum class OpFamily {
  kAdd,
  kAddChunk,
  kAddChunks,
  kAttendTile,
  kCopy,
  kExchange,
  kGated,
  kMatmul,
  kMergeTail,
  kMergeTiles,
  kNorm,
  kQuantize,
  kRopeStore,
  kSelect,
  kSelectBits,
  kStamp,
};
constexpr int kForms = 64;  // of a family, at most
constexpr int kNotResident = -1;
constexpr int op_number(OpFamily family, int form = 0) {
  return static_cast<int>(family) * kForms + form;
}

template <typename Op>
__global__ void __launch_bounds__(Op::kThreads, Op::kMinBlocks)
    run_op(typename Op::Call call, int n_units) {
  using Shared = typename Op::Shared;
  constexpr int kUnits = Op::kOfWarp ? Op::kThreads / kWarp : 1;  // of a block
  const int number = Op::kOfWarp ? static_cast<int>(threadIdx.x) / kWarp : 0;
  const int unit = static_cast<int>(blockIdx.x) * kUnits + number;
  if (unit >= n_units) return;
  if constexpr (__is_empty(Shared)) {
    Op::run(call, unit, nullptr);
  } else {
    SHARED(shared, Shared[kUnits]);
    Op::run(call, unit, &shared[number]);
  }
}

// Whether one block of a program's kernel does all of it in one round.
template <typename Op>
constexpr bool is_small(int64_t n_units) {
  return n_units <= (Op::kOfWarp ? kBlockWarps : 1);
}

template <typename Op>
LaunchError append(DeviceProgram* program, int64_t n_units, const typename Op::Call& call) {
  using Call = typename Op::Call;
  static_assert(__is_trivially_copyable(Call) && sizeof(Call) <= sizeof(ProgramStep::call));
  static_assert(alignof(Call) <= alignof(ProgramStep));
  static_assert(Op::kNumber == kNotResident || Op::kOfWarp || Op::kThreads == kBlockThreads);
  if (Op::kNumber == kNotResident || program->n_steps == program->max_steps) return kNotInPrograms;
  ProgramStep* const step = program->steps + program->n_steps;
  const bool small = is_small<Op>(n_units);
  *step = {};
  step->op = Op::kNumber;
  step->n_units = static_cast<int32_t>(n_units);
  step->is_small = small;
  const bool is_beside = program->first_beside >= 0 && program->n_steps > program->first_beside;
  // Where one block has done all, the others have waited for none of it.
  if (is_beside && (small || !program->is_in_block)) {
    step->order = StepOrder::kBeside;
    step->skew = step[-1].skew + step[-1].n_units;
  } else if (program->is_in_block && small) {
    step->order = StepOrder::kInBlock;
  } else {
    program->is_in_block = small;
  }
  __builtin_memcpy(step->call, &call, sizeof(call));
  const auto shared_bytes = static_cast<int64_t>(
      __is_empty(typename Op::Shared)
          ? 0
          : sizeof(typename Op::Shared) * static_cast<size_t>(Op::kOfWarp ? kBlockWarps : 1));
  if (shared_bytes > program->shared_bytes) program->shared_bytes = shared_bytes;
  ++program->n_steps;
  return 0;
}

// At the end of the stream, or of its program.
template <typename Op>
LaunchError launch_op(DeviceStream* stream, int64_t n_units, const typename Op::Call& call) {
  if (n_units == 0) return 0;
  if (stream->program != nullptr) return append<Op>(stream->program, n_units, call);
  constexpr int kUnits = Op::kOfWarp ? Op::kThreads / kWarp : 1;
  return launch(stream, Op::kName, static_cast<unsigned>(div_up(n_units, kUnits)), Op::kThreads, 0,
                run_op<Op>, call, n_units);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
