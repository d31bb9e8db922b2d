// The file of --kl-divergence-base: what a base model said of a text, to compare others with.
//
// Format, little-endian, version 1: "TCKLBASE", u32 version, u32 n_vocab, u32 n_ctx, u32 n_chunks,
// tokens [n_chunks, n_ctx] i32 (before BOS is put in), then log-probabilities
// [n_chunks, rows, n_vocab] f32, rows = ScoredRows(n_ctx). f32, not 16 bits as llama.cpp stores
// them: a model that computes the same bits is then at a divergence of exactly 0.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace thermocline {

// Positions of a chunk whose next token is scored: n_ctx / 2 to n_ctx - 2.
inline int64_t ScoredRows(int64_t n_ctx) { return n_ctx - 1 - n_ctx / 2; }

struct KlBaseHeader {
  int64_t n_vocab = 0;
  int64_t n_ctx = 0;
  int64_t n_chunks = 0;
  std::vector<int32_t> tokens;  // [n_chunks, n_ctx]
};

// Writes under a temporary name beside `path`; Finish gives it its name, else it is removed.
class KlBaseWriter {
 public:
  static absl::StatusOr<std::unique_ptr<KlBaseWriter>> Create(const std::string& path,
                                                              const KlBaseHeader& header);
  ~KlBaseWriter();
  absl::Status Append(const std::vector<float>& log_probs);  // whole rows, in order
  absl::Status Finish();

 private:
  KlBaseWriter(std::string path, std::string temporary, FILE* file);
  absl::Status Write(const void* bytes, size_t n);
  std::string path_, temporary_;
  FILE* file_;
};

class KlBaseReader {
 public:
  // InvalidArgument when it is not such a file, of another version, or not as long as it says.
  static absl::StatusOr<std::unique_ptr<KlBaseReader>> Open(const std::string& path);
  ~KlBaseReader();
  const KlBaseHeader& header() const { return header_; }
  absl::Status Read(std::vector<float>* log_probs);  // fills the vector with the next rows

 private:
  KlBaseReader(std::string path, FILE* file) : path_(std::move(path)), file_(file) {}
  absl::Status ReadHeader();
  absl::Status ReadBytes(void* bytes, size_t n);
  std::string path_;
  FILE* file_;
  KlBaseHeader header_;
};

}  // namespace thermocline
