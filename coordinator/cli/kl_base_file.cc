// Writes and reads the base file; its layout is in kl_base_file.h.
#include "coordinator/cli/kl_base_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

constexpr char kMagic[] = {'T', 'C', 'K', 'L', 'B', 'A', 'S', 'E'};
constexpr uint32_t kVersion = 1;
// Limits that no real run reaches and that keep products of three below 2^63.
constexpr uint32_t kMaxVocab = 1 << 24, kMaxContext = 1 << 20, kMaxChunks = 1 << 18;

struct FixedHeader {
  char magic[sizeof kMagic];
  uint32_t version, n_vocab, n_ctx, n_chunks;
};

absl::Status Failed(const std::string& what, const std::string& path) {
  return absl::ErrnoToStatus(errno, fmt::format("can't {} '{}'", what, path));
}

}  // namespace

KlBaseWriter::KlBaseWriter(std::string path, std::string temporary, FILE* file)
    : path_(std::move(path)), temporary_(std::move(temporary)), file_(file) {}

absl::StatusOr<std::unique_ptr<KlBaseWriter>> KlBaseWriter::Create(const std::string& path,
                                                                   const KlBaseHeader& header) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) return Failed("write", temporary);
  std::unique_ptr<KlBaseWriter> writer(new KlBaseWriter(path, temporary, file));
  FixedHeader fixed = {.magic = {},
                       .version = kVersion,
                       .n_vocab = static_cast<uint32_t>(header.n_vocab),
                       .n_ctx = static_cast<uint32_t>(header.n_ctx),
                       .n_chunks = static_cast<uint32_t>(header.n_chunks)};
  std::memcpy(fixed.magic, kMagic, sizeof kMagic);
  RETURN_IF_ERROR(writer->Write(&fixed, sizeof fixed));
  RETURN_IF_ERROR(writer->Write(header.tokens.data(), header.tokens.size() * sizeof(int32_t)));
  return writer;
}

KlBaseWriter::~KlBaseWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(temporary_.c_str());
}

absl::Status KlBaseWriter::Write(const void* bytes, size_t n) {
  return std::fwrite(bytes, 1, n, file_) == n ? absl::OkStatus() : Failed("write", temporary_);
}

absl::Status KlBaseWriter::Append(const std::vector<float>& log_probs) {
  return Write(log_probs.data(), log_probs.size() * sizeof(float));
}

absl::Status KlBaseWriter::Finish() {
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (closed && std::rename(temporary_.c_str(), path_.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = Failed("write", path_);
  unlink(temporary_.c_str());
  return status;
}

absl::StatusOr<std::unique_ptr<KlBaseReader>> KlBaseReader::Open(const std::string& path) {
  FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return Failed("read", path);
  std::unique_ptr<KlBaseReader> reader(new KlBaseReader(path, file));
  RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

KlBaseReader::~KlBaseReader() { std::fclose(file_); }

absl::Status KlBaseReader::ReadHeader() {
  FixedHeader fixed;
  const auto wrong = [this](const std::string& what) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no usable base of --kl-divergence-base: {}", path_, what));
  };
  if (std::fread(&fixed, sizeof fixed, 1, file_) != 1 ||
      std::memcmp(fixed.magic, kMagic, sizeof kMagic) != 0) {
    return wrong("it does not begin with TCKLBASE");
  }
  if (fixed.version != kVersion) {
    return wrong(fmt::format("its version is {}, this program reads {}", fixed.version, kVersion));
  }
  if (fixed.n_vocab == 0 || fixed.n_vocab > kMaxVocab || fixed.n_ctx < 2 ||
      fixed.n_ctx > kMaxContext || fixed.n_chunks == 0 || fixed.n_chunks > kMaxChunks) {
    return wrong("a count in its header is impossible");
  }
  header_ = {
      .n_vocab = fixed.n_vocab, .n_ctx = fixed.n_ctx, .n_chunks = fixed.n_chunks, .tokens = {}};
  const int64_t n_tokens = header_.n_chunks * header_.n_ctx;
  const int64_t n_log_probs = header_.n_chunks * ScoredRows(header_.n_ctx) * header_.n_vocab;
  const int64_t n_bytes = static_cast<int64_t>(sizeof fixed) + 4 * n_tokens + 4 * n_log_probs;
  if (fseeko(file_, 0, SEEK_END) != 0 || ftello(file_) != n_bytes ||
      fseeko(file_, sizeof fixed, SEEK_SET) != 0) {
    return wrong(fmt::format("by its header it must be {} bytes long, and it is not", n_bytes));
  }
  header_.tokens.resize(n_tokens);
  RETURN_IF_ERROR(ReadBytes(header_.tokens.data(), header_.tokens.size() * sizeof(int32_t)));
  for (int32_t token : header_.tokens) {
    if (token < 0 || token >= header_.n_vocab) return wrong("a token is not in its vocabulary");
  }
  return absl::OkStatus();
}

absl::Status KlBaseReader::ReadBytes(void* bytes, size_t n) {
  return std::fread(bytes, 1, n, file_) == n ? absl::OkStatus() : Failed("read", path_);
}

absl::Status KlBaseReader::Read(std::vector<float>* log_probs) {
  return ReadBytes(log_probs->data(), log_probs->size() * sizeof(float));
}

}  // namespace thermocline
