// Room for activations, and their quantization.
#include "cpu_worker/activations.h"

namespace thermocline {
namespace {

int64_t WholeBlocks(int64_t n) {
  return (n + kernels::kBlockCols - 1) / kernels::kBlockCols * kernels::kBlockCols;
}

}  // namespace

void Activations::Allocate(int64_t max_tokens, int64_t width) {
  width_ = WholeBlocks(width);
  f32_.assign(max_tokens * width_, 0.0f);
  q_.assign(max_tokens * width_, 0);
  scale_.assign(max_tokens * width_ / kernels::kBlockCols, 0.0f);
  sum_.assign(max_tokens * width_ / kernels::kBlockCols, 0);
}

void Activations::Quantize(const kernels::Ops& ops, int64_t token, int64_t begin, int64_t end) {
  const int64_t at = token * width_ + begin;
  const int64_t block = at / kernels::kBlockCols;
  ops.quantize(f32_.data() + at, WholeBlocks(end - begin), q_.data() + at, scale_.data() + block,
               sum_.data() + block);
}

}  // namespace thermocline
