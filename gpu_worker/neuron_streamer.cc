// Cuts layers into chunks, packs and sends them.
#include "gpu_worker/neuron_streamer.h"

#include <algorithm>

#include "common/plan/streamed_neurons.h"
#include "common/util/check.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

std::vector<std::vector<Range>> ChunksOf(const std::vector<Range>& neurons) {
  return CutNeurons(neurons, (TotalSize(neurons) + kStreamNeurons - 1) / kStreamNeurons);
}

}  // namespace

int64_t NeuronStreamer::MaxNeurons(const ShardSpec& spec) {
  int64_t most = 0;
  for (const ShardSpec::Layer& layer : spec.layers) {
    for (const std::vector<Range>& chunk : ChunksOf(layer.streamed)) {
      most = std::max(most, TotalSize(chunk));
    }
  }
  return most;
}

NeuronStreamer::NeuronStreamer(const GgufFile* file, const ShardSpec* spec, int64_t d_model,
                               Device* device)
    : file_(file), d_model_(d_model), device_(device) {
  for (const ShardSpec::Layer& layer : spec->layers) {
    chunks_.push_back(ChunksOf(layer.streamed));
    for (const std::vector<Range>& neurons : chunks_.back()) {
      Chunk unused;
      const std::vector<PackJob> jobs = JobsOf(std::ssize(chunks_) - 1, neurons, &unused);
      area_bytes_ = std::max(area_bytes_, ImageBytes(jobs));
    }
  }
}

absl::Status NeuronStreamer::SetUp(uint8_t* area) {
  area_ = area;
  for (uint8_t*& image : images_) {
    ASSIGN_OR_RETURN(image, device_->AllocateHost(area_bytes_));
    std::fill_n(image, area_bytes_, uint8_t{0});  // padding is sent, too
  }
  return absl::OkStatus();
}

std::vector<PackJob> NeuronStreamer::JobsOf(int64_t layer, const std::vector<Range>& neurons,
                                            Chunk* chunk) const {
  const auto rows = [&](Role role, kernels::DeviceMatrix* matrix) {
    const GgufTensor* tensor = FindRole(*file_, role, layer);
    THERMOCLINE_CHECK(tensor != nullptr);  // CheckTensors has seen the file
    return PackRows(file_, tensor, neurons, {0, d_model_}, matrix);
  };
  return {rows(Role::kFfnGate, &chunk->gate), rows(Role::kFfnUp, &chunk->up),
          PackNeurons(file_, layer, neurons, d_model_, &chunk->down)};
}

absl::StatusOr<NeuronStreamer::Chunk> NeuronStreamer::Load(int64_t layer, int64_t index,
                                                           const StreamHost& host) {
  Chunk chunk;
  const std::vector<PackJob> jobs = JobsOf(layer, chunks_[layer][index], &chunk);
  Pack(jobs, images_[0], host.working);
  RETURN_IF_ERROR(
      host.await());  // the chunk before is computed: its area may be written, and its image
  RETURN_IF_ERROR(device_->Upload(area_, images_[0], ImageBytes(jobs)));
  std::swap(images_[0], images_[1]);
  uint8_t* at = area_;
  kernels::place_device_matrix(at, &chunk.gate);
  kernels::place_device_matrix(at += AlignedImage(jobs[0].n_bytes), &chunk.up);
  kernels::place_device_neurons(at += AlignedImage(jobs[1].n_bytes), &chunk.down);
  return chunk;
}

}  // namespace thermocline
