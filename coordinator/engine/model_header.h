// What the coordinator knows of a model: configuration, tokenizer, embedding rows read from the
// file as they are needed. It holds no weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/tokenizer.h"

namespace thermocline {

class ModelHeader {
 public:
  // hidden_activation: "" or the name that overrides the file's. All errors of reading a GGUF, its
  // configuration, tensors and tokenizer; each names the file.
  static absl::StatusOr<std::unique_ptr<ModelHeader>> Open(const std::string& path,
                                                           const std::string& hidden_activation);
  ~ModelHeader();

  const GgufFile& file() const { return *file_; }
  const ModelConfig& config() const { return config_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  std::string id() const;  // the file's name without its folder

  // Dequantizes the embedding row of a token into x [d_model]. InvalidArgument for an id out of
  // range, DataLoss when the file can't be read any more.
  absl::Status ReadEmbedding(int32_t token, float* x) const;

 private:
  ModelHeader() = default;
  std::unique_ptr<GgufFile> file_;
  ModelConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  const GgufTensor* embedding_ = nullptr;
  int fd_ = -1;  // read by pread: mapped pages would count as the coordinator's memory
};

}  // namespace thermocline
