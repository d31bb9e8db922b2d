// Rows and blocks, and threads over them.
#include "gpu_worker/packing.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "common/util/check.h"
#include "common/worker/row_cursor.h"
#include "common/worker/shard_spec.h"

namespace thermocline {
namespace {

// Reading the file and writing as much takes a thread longer than starting it does.
constexpr int64_t kBytesOfThread = 1 << 20;

// The file's blocks of kNeuronUnit with one of some neurons, and where each neuron of them goes.
struct NeuronBlocks {
  std::vector<int64_t> blocks;
  std::vector<int32_t> row_at;  // [n_blocks, kNeuronUnit], or -1
};

NeuronBlocks BlocksOf(const std::vector<Range>& neurons) {
  NeuronBlocks of;
  int32_t row = 0;
  for (const Range& range : neurons) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      if (of.blocks.empty() || of.blocks.back() != i / kNeuronUnit) {
        of.blocks.push_back(i / kNeuronUnit);
        of.row_at.resize(of.row_at.size() + kNeuronUnit, -1);
      }
      of.row_at[of.row_at.size() - kNeuronUnit + i % kNeuronUnit] = row++;
    }
  }
  return of;
}

PackJob PackTransposed(const GgufFile* file, const GgufTensor* tensor,
                       const std::vector<Range>& neurons, int64_t d_model,
                       kernels::DeviceNeurons* layout) {
  *layout = kernels::device_transposed_layout(tensor->type, TotalSize(neurons), d_model);
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  return {file, tensor, kernels::device_neuron_bytes(*layout), layout->n_neurons,
          [=, of = *layout](uint8_t* image, int64_t begin, int64_t end) {
            RowCursor cursor(neurons, begin);
            for (int64_t row = begin; row < end; ++row) {
              kernels::pack_device_transposed_row(of, row, bytes + cursor.Next() * row_bytes,
                                                  image);
            }
          }};
}

}  // namespace

PackJob PackRows(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& rows,
                 Range cols, kernels::DeviceMatrix* layout) {
  *layout = kernels::device_layout(tensor->type, TotalSize(rows), cols.begin, cols.size());
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  return {file, tensor, kernels::device_matrix_bytes(*layout), layout->n_rows,
          [=, of = *layout](uint8_t* image, int64_t begin, int64_t end) {
            RowCursor cursor(rows, begin);
            for (int64_t row = begin; row < end; ++row) {
              kernels::pack_device_row(of, cols.begin, row, bytes + cursor.Next() * row_bytes,
                                       image);
            }
          }};
}

PackJob PackNeurons(const GgufFile* file, int64_t layer, const std::vector<Range>& neurons,
                    int64_t d_model, kernels::DeviceNeurons* layout) {
  if (const GgufTensor* transposed = FindRole(*file, Role::kFfnDownT, layer)) {
    return PackTransposed(file, transposed, neurons, d_model, layout);
  }
  const GgufTensor* tensor = FindRole(*file, Role::kFfnDown, layer);
  THERMOCLINE_CHECK(tensor != nullptr);  // CheckTensors has seen the file
  NeuronBlocks blocks = BlocksOf(neurons);
  const auto n_blocks = static_cast<int64_t>(blocks.blocks.size());
  *layout = kernels::device_neuron_layout(tensor->type, TotalSize(neurons), n_blocks, d_model);
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  return {
      file, tensor, kernels::device_neuron_bytes(*layout), n_blocks,
      [=, of = *layout, blocks = std::move(blocks)](uint8_t* image, int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          kernels::pack_device_neuron_block(of, b, blocks.row_at.data() + b * kNeuronUnit, bytes,
                                            row_bytes, blocks.blocks[b], image);
        }
      }};
}

PackJob PackVector(const GgufFile* file, const GgufTensor* tensor,
                   const std::vector<Range>& elements) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(float));
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  return {file, tensor, TotalSize(elements) * kSize, /*n_units=*/1,
          [=](uint8_t* image, int64_t begin, int64_t end) {
            if (begin == end) return;
            for (const Range& range : elements) {
              std::memcpy(image, bytes + range.begin * kSize, range.size() * kSize);
              image += range.size() * kSize;
            }
          }};
}

int64_t ImageBytes(absl::Span<const PackJob> jobs) {
  int64_t n_bytes = 0;
  for (const PackJob& job : jobs) n_bytes += AlignedImage(job.n_bytes);
  return n_bytes;
}

// Each thread takes its part of every job: a block of neurons is more work than a row.
void Pack(absl::Span<const PackJob> jobs, uint8_t* image, const std::function<void()>& working) {
  int64_t most_units = 1;
  for (const PackJob& job : jobs) most_units = std::max(most_units, job.n_units);
  const int64_t n_threads =
      std::max<int64_t>(std::min<int64_t>({std::thread::hardware_concurrency(),
                                           ImageBytes(jobs) / kBytesOfThread, most_units}),
                        1);
  const auto pack = [&](int64_t thread) {
    constexpr int64_t kUnitsAtOnce = 16;
    uint8_t* at = image;
    for (const PackJob& job : jobs) {
      const int64_t end = job.n_units * (thread + 1) / n_threads;
      for (int64_t unit = job.n_units * thread / n_threads; unit < end; unit += kUnitsAtOnce) {
        job.pack(at, unit, std::min(unit + kUnitsAtOnce, end));
        if (thread == 0) working();
      }
      at += AlignedImage(job.n_bytes);
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < n_threads; ++i) threads.emplace_back(pack, i);
  pack(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace thermocline
