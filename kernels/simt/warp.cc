// What lanes of a warp exchange when they have met: votes, shuffles, __syncwarp. Their waiting and
// their turns: block.cc.
#include <fmt/format.h>

#include "kernels/simt/block.h"

namespace thermocline::kernels::simt {
namespace {

bool is_shuffle(WarpOp op) { return op >= WarpOp::kShuffle; }

const char* name(WarpOp op) {
  switch (op) {
    case WarpOp::kSync:
      return "__syncwarp";
    case WarpOp::kBallot:
      return "__ballot_sync";
    case WarpOp::kAny:
      return "__any_sync";
    case WarpOp::kAll:
      return "__all_sync";
    case WarpOp::kShuffle:
      return "__shfl_sync";
    case WarpOp::kShuffleUp:
      return "__shfl_up_sync";
    case WarpOp::kShuffleDown:
      return "__shfl_down_sync";
    case WarpOp::kShuffleXor:
      return "__shfl_xor_sync";
  }
  return "";
}

// The lane whose value a shuffle gives to `lane`; PTX ISA, shfl.sync. A lane beyond the segment's
// end (before its start, for up) stands for the lane itself.
int source_lane(const WarpCall& call, int lane) {
  const int first = lane & -call.width, last = first + call.width - 1;
  switch (call.op) {
    case WarpOp::kShuffle:
      return first + (call.lane & (call.width - 1));
    case WarpOp::kShuffleUp:
      return lane - call.lane < first ? lane : lane - call.lane;
    case WarpOp::kShuffleDown:
      return lane + call.lane > last ? lane : lane + call.lane;
    default:
      return (lane ^ call.lane) > last ? lane : lane ^ call.lane;
  }
}

std::string text(const WarpCall& call) {
  return fmt::format("{} at {}:{} (mask {:08x})", name(call.op), call.where.file, call.where.line,
                     call.mask);
}

}  // namespace

uint64_t warp_call(const WarpCall& call) {
  Thread* thread = running_thread();
  Block* block = thread->owner;
  const int lane = thread->number % 32;
  const bool is_width = call.width >= 1 && call.width <= 32 && (call.width & (call.width - 1)) == 0;
  if ((call.mask >> lane & 1) == 0) {
    block->fail(ErrorCode::kWarpMismatch,
                fmt::format("{} calls {}, whose mask leaves out its own lane {}",
                            block->name(*thread), text(call), lane));
  } else if (!is_width || (call.op != WarpOp::kShuffle && (call.lane < 0 || call.lane > 31))) {
    block->fail(ErrorCode::kWarpMismatch,
                fmt::format("{} calls {} with lane {}, width {}: a width is a power of two up to "
                            "32, a delta or lane mask lies in 0 to 31",
                            block->name(*thread), text(call), call.lane, call.width));
  }
  thread->call = call;
  block->wait(thread, &Warp::calling, call.where);
  return thread->result;
}

void Block::match_calls(Warp* warp) {
  for (uint32_t left = warp->calling; left != 0 && grid_->error.ok(); left &= left - 1) {
    const int lane = std::countr_zero(left);
    if ((warp->calling >> lane & 1) != 0) finish_call(warp, lane);  // else it went with another
  }
}

// Lets `lane` go on with those that it waits for, if they are all there.
void Block::finish_call(Warp* warp, int lane) {
  const Thread& thread = warp->lanes[lane];
  const WarpCall& call = thread.call;
  const uint32_t gone = call.mask & ~warp->live();
  if (is_shuffle(call.op) && gone != 0) {
    fail(ErrorCode::kExitedLane,
         fmt::format("{} waits in {}, but lane {} of its warp has exited or is not there",
                     name(thread), text(call), std::countr_zero(gone)));
    return;
  }
  const uint32_t lanes = call.mask & ~gone;
  if ((lanes & ~warp->calling) != 0) return;
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const Thread& other = warp->lanes[std::countr_zero(left)];
    if (other.call.mask != call.mask) return;
    if (other.call.op == call.op) continue;
    fail(ErrorCode::kWarpMismatch,
         fmt::format("{} waits in {}, {} of the same warp in {}", name(thread), text(call),
                     name(other), text(other.call)));
    return;
  }
  complete(warp, lanes);
}

void Block::complete(Warp* warp, uint32_t lanes) {
  Thread* threads = warp->lanes;
  const WarpCall& first = threads[std::countr_zero(lanes)].call;
  uint64_t votes = 0;
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    votes |= uint64_t{threads[lane].call.value != 0} << lane;
  }
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    Thread& thread = threads[lane];
    thread.result = votes;
    if (!is_shuffle(thread.call.op)) continue;
    const int source = source_lane(thread.call, lane);
    thread.result = threads[source].call.value;
    if ((lanes >> source & 1) == 0) {
      fail(ErrorCode::kWarpMismatch,
           fmt::format("{} reads lane {} in {}, which the mask leaves out", name(thread), source,
                       text(thread.call)));
    }
  }
  if (observer() != nullptr && first.op == WarpOp::kSync) {
    observer()->lanes_met(*this, threads->number / 32, lanes);
  }
  warp->calling &= ~lanes;
  warp->ready |= lanes;
}

}  // namespace thermocline::kernels::simt
