// Opens and checks a model; reads single rows of its embedding.
#include "coordinator/engine/model_header.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/gguf/dequantize.h"
#include "common/model/tensor_table.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<ModelHeader>> ModelHeader::Open(
    const std::string& path, const std::string& hidden_activation) {
  std::unique_ptr<ModelHeader> header(new ModelHeader());
  ASSIGN_OR_RETURN(header->file_, GgufFile::Open(path));
  const auto in_file = [&path](const absl::Status& status) {
    const std::string message(status.message());
    if (status.ok() || message.find(path) != std::string::npos) return status;
    return absl::Status(status.code(), fmt::format("{}: {}", path, message));
  };
  absl::StatusOr<ModelConfig> config = ReadModelConfig(*header->file_);
  if (!config.ok()) return in_file(config.status());
  header->config_ = *std::move(config);
  if (!hidden_activation.empty()) {
    absl::StatusOr<Activation> activation = ParseActivation(hidden_activation);
    if (!activation.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("--hidden-activation {}", std::string(activation.status().message())));
    }
    header->config_.activation = *activation;
  }
  RETURN_IF_ERROR(in_file(CheckTensors(*header->file_, header->config_)));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(*header->file_);
  if (!tokenizer.ok()) return in_file(tokenizer.status());
  header->tokenizer_ = *std::move(tokenizer);
  if (header->tokenizer_->n_vocab() > header->config_.n_vocab) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the tokenizer has {} tokens, the embedding only {} rows", path,
                    header->tokenizer_->n_vocab(), header->config_.n_vocab));
  }
  header->embedding_ = FindRole(*header->file_, Role::kTokenEmbedding);
  header->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (header->fd_ < 0) {
    return absl::NotFoundError(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return header;
}

ModelHeader::~ModelHeader() {
  if (fd_ >= 0) ::close(fd_);
}

std::string ModelHeader::id() const {
  return file_->path().substr(file_->path().find_last_of('/') + 1);
}

absl::Status ModelHeader::ReadEmbedding(int32_t token, float* x) const {
  if (token < 0 || token >= config_.n_vocab) {
    return absl::InvalidArgumentError(
        fmt::format("token {} is not in the vocabulary of {}", token, config_.n_vocab));
  }
  const int64_t row_bytes = embedding_->row_bytes();
  std::vector<uint8_t> row(row_bytes);
  int64_t done = 0;
  while (done < row_bytes) {
    const ssize_t n =
        ::pread(fd_, row.data() + done, row_bytes - done,
                static_cast<off_t>(embedding_->file_offset + token * row_bytes + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      return absl::DataLossError(
          fmt::format("{}: can't read {}: {}", file_->path(), embedding_->name,
                      n == 0 ? "the file has shrunk" : std::strerror(errno)));
    }
    done += n;
  }
  dequantize(embedding_->type, row.data(), config_.d_model, x);
  return absl::OkStatus();
}

}  // namespace thermocline
