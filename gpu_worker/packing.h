// What a GPU takes of a file, brought into the kernels' layout on the host: which rows or blocks of
// a tensor, and the threads that do it. Nothing is sent.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "common/gguf/gguf_file.h"
#include "common/model/tensor_table.h"
#include "common/plan/plan.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/neurons.h"

namespace thermocline {

inline constexpr int64_t kImageAlignment = 256;
inline int64_t AlignedImage(int64_t n_bytes) {
  return (n_bytes + kImageAlignment - 1) / kImageAlignment * kImageAlignment;
}

// Of one tensor. pack fills an image of n_bytes on the host, units [begin, end) of it; apart, units
// may be packed by different threads. What it does not write is padding.
struct PackJob {
  const GgufFile* file;  // must outlive the job, with its tensor
  const GgufTensor* tensor;
  int64_t n_bytes;
  int64_t n_units;  // rows, or blocks of neurons
  std::function<void(uint8_t* image, int64_t begin, int64_t end)> pack;
};

// These columns of these rows; layout gets their shape.
PackJob PackRows(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& rows,
                 Range cols, kernels::DeviceMatrix* layout);
// What these neurons of a layer add, from its ffn_down_t, or else ffn_down. layout as above.
PackJob PackNeurons(const GgufFile* file, int64_t layer, const std::vector<Range>& neurons,
                    int64_t d_model, kernels::DeviceNeurons* layout);
// Values of a vector in f32.
PackJob PackVector(const GgufFile* file, const GgufTensor* tensor,
                   const std::vector<Range>& elements);

int64_t ImageBytes(absl::Span<const PackJob> jobs);
// All images, one after another, each AlignedImage(n_bytes) long, by as many threads as pay.
// working is called by this one every few units: pages of the file may have to come from a disk.
void Pack(
    absl::Span<const PackJob> jobs, uint8_t* image, const std::function<void()>& working = [] {});

}  // namespace thermocline
