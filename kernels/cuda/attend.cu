// Launches attention: how a step's rows are cut into blocks.
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

// Tiles that a token at up to max_position attends to, at most.
int64_t tiles_of_token(int64_t max_position, int64_t window) {
  const int64_t all = max_position / kAttendTile + 1;
  const int64_t of_window = (window + kAttendTile - 2) / kAttendTile + 1;
  return window > 0 && of_window < all ? of_window : all;
}
// Whether a token's tiles are computed side by side and then merged. If not, one block goes through
// them, which needs no memory: rows enough fill a card so.
bool splits_tiles(int64_t n_tokens, int32_t n_heads, int64_t n_tiles) {
  constexpr int64_t kManyRows = 4096;
  const int64_t n_rows = n_tokens * n_heads;
  return n_tiles > 1 &&
         (n_tokens == 1 || (n_rows <= kManyRows && n_rows * n_tiles <= kMaxAttendPartials));
}

template <DeviceKvType kType>
LaunchError launch_tiles(DeviceStream* stream, int64_t n_units, const AttendCall& call) {
  const int n_rows = call.heads_per_block * call.tokens_per_block;
  if (n_rows == 1) return launch_op<AttendTiles<kType, 1>>(stream, n_units, call);
  if (n_rows <= 4) return launch_op<AttendTiles<kType, 4>>(stream, n_units, call);
  if (n_rows <= 8) return launch_op<AttendTiles<kType, 8>>(stream, n_units, call);
  return launch_op<AttendTiles<kType, 16>>(stream, n_units, call);
}

}  // namespace

LaunchError attend(DeviceStream* stream, const float* q, const DeviceToken* tokens,
                   int64_t n_tokens, int32_t n_heads, const DeviceKv& kv, float scale,
                   int64_t window, int64_t max_position, float* out, float* state,
                   void* workspace) {
  if (n_tokens == 0) return 0;
  const int64_t n_tiles = tiles_of_token(max_position, window);
  const bool splits = splits_tiles(n_tokens, n_heads, n_tiles);
  // Shared memory has room for 16 rows of q, or 8 long ones.
  const int64_t max_rows = kv.d_head <= 128 ? 16 : 8;
  const int64_t heads_of_kv = n_heads / kv.n_kv_heads;
  const int64_t n_groups = div_up(heads_of_kv, max_rows);
  const int64_t heads_per_block = div_up(heads_of_kv, n_groups);
  // Tokens of one slot share what a block reads, once there are blocks enough to fill a card.
  constexpr int64_t kManyBlocks = 1024;
  const int64_t n_splits = splits ? n_tiles : 1;
  const int64_t of_tokens = kv.n_kv_heads * n_groups * n_splits;
  const int64_t may_share = n_tokens * of_tokens / kManyBlocks;
  const int64_t tokens_per_block = max(int64_t{1}, min(may_share, max_rows / heads_per_block));
  const int64_t n_units = div_up(n_tokens, tokens_per_block) * of_tokens;
  const AttendCall call = {
      .q = q,
      .tokens = tokens,
      .n_tokens = n_tokens,
      .n_heads = n_heads,
      .kv = kv,
      .n_slabs = static_cast<int32_t>(device_kv_row(kv.d_head) / kSlab),
      .scale = scale,
      .window = window,
      .out = out,
      .state = state,
      .partial = splits ? static_cast<float*>(workspace) : nullptr,
      .n_tiles = static_cast<int32_t>(n_tiles),
      .n_splits = static_cast<int32_t>(n_splits),
      .n_groups = static_cast<int32_t>(n_groups),
      .heads_per_block = static_cast<int32_t>(heads_per_block),
      .tokens_per_block = static_cast<int32_t>(tokens_per_block),
  };
  const LaunchError error = kv.type == DeviceKvType::kF16
                                ? launch_tiles<DeviceKvType::kF16>(stream, n_units, call)
                                : launch_tiles<DeviceKvType::kQ8_0>(stream, n_units, call);
  if (error != 0 || !splits) return error;
  return launch_op<MergeTiles>(stream, n_tokens * n_heads * call.n_slabs, call);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
