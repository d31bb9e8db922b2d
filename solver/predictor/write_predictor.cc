#include "solver/predictor/write_predictor.h"

#include <fmt/format.h>

#include "common/gguf/byte_writer.h"
#include "common/gguf/gguf_writer.h"

namespace thermocline {

absl::Status WritePredictor(const std::vector<TrainedLayer>& layers, const std::string& model_hash,
                            const std::string& path) {
  std::vector<float> thresholds;
  for (const TrainedLayer& layer : layers) thresholds.push_back(layer.selection.threshold);
  GgufWriter writer("thermocline-predictor");
  writer.String("thermocline.model_hash", model_hash)
      .Floats("thermocline.predictor.thresholds", thresholds)
      .Bool("thermocline.predictor.reads_residual", false)
      .Bool("thermocline.predictor.has_relu", false);
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto add = [&](const char* name, const QuantizedMatrix& m) {
      writer.Tensor(fmt::format("blk.{}.{}.weight", i, name), m.type, {m.n_rows, m.n_cols},
                    m.bytes);
    };
    add("fc1", layers[i].fc1);
    add("fc2", layers[i].fc2);
    ByteWriter bias;
    for (const float value : layers[i].bias) bias.Put(value);
    writer.Tensor(fmt::format("blk.{}.fc2.bias", i), TensorType::kF32, {std::ssize(layers[i].bias)},
                  bias.bytes());
  }
  return writer.Write(path);
}

}  // namespace thermocline
