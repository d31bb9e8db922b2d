// CUDA's functions of a warp: shuffles, votes, __syncwarp. How lanes meet: warp_call.h.
#pragma once

#include <stdint.h>

#include "kernels/simt/half.h"
#include "kernels/simt/threads.h"
#include "kernels/simt/warp_call.h"

namespace thermocline::kernels::simt {

template <typename T, typename... Others>
inline constexpr bool is_one_of = (__is_same(T, Others) || ...);

template <typename T>
SIMT_UNWATCHED T shuffle(WarpOp op, uint32_t mask, T value, int lane, int width, Place where) {
  static_assert(is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long,
                          float, double, __half, __half2, __nv_bfloat16, __nv_bfloat162>,
                "CUDA shuffles no other types");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = warp_call({op, mask, bits, lane, width, where});
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

SIMT_UNWATCHED uint32_t vote(WarpOp op, uint32_t mask, bool predicate, Place where) {
  return static_cast<uint32_t>(warp_call({op, mask, predicate, 0, 32, where}));
}

}  // namespace thermocline::kernels::simt

#define SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SIMT_SHUFFLE(function, op, argument_type)                                                 \
  template <typename T>                                                                           \
  inline T function(unsigned mask, T value, argument_type lane, int width = 32, SIMT_CALLER) {    \
    using ::thermocline::kernels::simt::WarpOp;                                                   \
    return ::thermocline::kernels::simt::shuffle(WarpOp::op, mask, value, static_cast<int>(lane), \
                                                 width, {file, line});                            \
  }
SIMT_SHUFFLE(__shfl_sync, kShuffle, int)
SIMT_SHUFFLE(__shfl_up_sync, kShuffleUp, unsigned)
SIMT_SHUFFLE(__shfl_down_sync, kShuffleDown, unsigned)
SIMT_SHUFFLE(__shfl_xor_sync, kShuffleXor, int)
#undef SIMT_SHUFFLE

inline void __syncwarp(unsigned mask = 0xffffffff, SIMT_CALLER) {
  using namespace ::thermocline::kernels::simt;
  warp_call({WarpOp::kSync, mask, 0, 0, 32, {file, line}});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALLER) {
  using namespace ::thermocline::kernels::simt;
  return vote(WarpOp::kBallot, mask, predicate != 0, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALLER) {
  using namespace ::thermocline::kernels::simt;
  return vote(WarpOp::kAny, mask, predicate != 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALLER) {
  using namespace ::thermocline::kernels::simt;
  return vote(WarpOp::kAll, mask, predicate == 0, {file, line}) == 0;
}
#undef SIMT_CALLER
