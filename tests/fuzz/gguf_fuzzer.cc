// libFuzzer harness: any bytes, read as a model as far as they go. Runs: tests/fuzz/run_bounded.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/gguf/dequantize.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/predictor.h"
#include "common/model/tensor_table.h"
#include "common/model/tokenizer.h"
#include "common/util/check.h"

namespace thermocline {
namespace {

// One line that says where: what every error of a file must be.
void CheckError(const absl::Status& status) {
  const std::string message(status.message());
  THERMOCLINE_CHECK(message.starts_with("fuzz: ") && message.find('\n') == std::string::npos);
}

// The first and last block of each tensor, and its rows' size.
void ReadTensors(const GgufFile& file) {
  for (const GgufTensor& tensor : file.tensors()) {
    const TypeInfo* info = tensor.info();
    if (info == nullptr) continue;
    const absl::Span<const uint8_t> bytes = file.TensorBytes(tensor);
    THERMOCLINE_CHECK(tensor.row_bytes() * tensor.n_rows() == bytes.size());
    std::vector<float> values(info->block_size);
    dequantize(tensor.type, bytes.data(), info->block_size, values.data());
    dequantize(tensor.type, &bytes[bytes.size() - info->block_bytes], info->block_size,
               values.data());
  }
}

void ReadModel(const GgufFile& file) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(file);
  if (!config.ok()) return CheckError(config.status());
  THERMOCLINE_CHECK(config->kv_heads_per_unit() >= 1);
  const absl::Status tensors = CheckTensors(file, *config);
  if (!tensors.ok()) return CheckError(tensors);
  const int64_t last = config->n_layers - 1;
  THERMOCLINE_CHECK((FindRole(file, Role::kFfnDown, last) == nullptr) !=
                    (FindRole(file, Role::kFfnDownT, last) == nullptr));
  const absl::StatusOr<Predictor> predictor = PredictorOfModel(file, *config);
  if (!predictor.ok()) return CheckError(predictor.status());
  for (const PredictorLayer& layer : predictor->layers) {
    THERMOCLINE_CHECK(layer.fc1 != nullptr && layer.fc2 != nullptr && layer.rank >= 1);
  }
}

// A text of some bytes of the file and of what tokenizers treat in a way of its own, there and
// back.
void ReadTokenizer(const GgufFile& file, std::string_view bytes) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> created = Tokenizer::Create(file);
  if (!created.ok()) return CheckError(created.status());
  const Tokenizer& tokenizer = **created;
  const std::string text = " It is\n  a <s>\xe2\x96\x81\xf0\x9f\xff" + std::string(bytes);
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids = tokenizer.Encode(text, special, special);
    for (const int32_t id : ids) THERMOCLINE_CHECK(id >= 0 && id < tokenizer.n_vocab());
    tokenizer.Decode(ids, special);
  }
  THERMOCLINE_CHECK(tokenizer.Piece(-1, true).empty() &&
                    tokenizer.Piece(tokenizer.n_vocab(), true).empty());
}

}  // namespace
}  // namespace thermocline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const auto file = GgufFile::Parse({data, size}, "fuzz");
  if (!file.ok()) {
    CheckError(file.status());
    return 0;
  }
  THERMOCLINE_CHECK((*file)->ContentHash().size() == 64);
  ReadTensors(**file);
  ReadModel(**file);
  const size_t n_text = std::min<size_t>(size, 48);
  ReadTokenizer(**file, {reinterpret_cast<const char*>(data) + size - n_text, n_text});
  return 0;
}
