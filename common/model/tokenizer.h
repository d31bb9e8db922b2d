// Text to token ids and back: the interface, chosen by the file's tokenizer.ggml.model. Each kind
// of tokenizer is a file of its own (spm.cc).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/vocabulary.h"

namespace thermocline {

class Tokenizer {
 public:
  // Unimplemented for a model kind without a tokenizer here, InvalidArgument for damaged
  // vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file);
  virtual ~Tokenizer() = default;

  // add_special: puts BOS (and EOS) where the file asks for it. parse_special: names of control
  // tokens in the text become those tokens; else they are plain text. Names of user-defined tokens
  // always become those tokens. Invalid UTF-8 is taken as bytes.
  virtual std::vector<int32_t> Encode(std::string_view text, bool add_special,
                                      bool parse_special) const = 0;
  // The bytes of one token as they stand in text: not always whole UTF-8 characters. Control tokens
  // give "" unless `special`. An id out of range gives "".
  virtual std::string Piece(int32_t id, bool special) const = 0;
  // All of it, with the leading space that Encode put in front taken away again.
  virtual std::string Decode(const std::vector<int32_t>& ids, bool special) const = 0;

  int32_t n_vocab() const { return static_cast<int32_t>(n_vocab_); }
  int32_t bos() const { return bos_; }  // -1 if none
  int32_t eos() const { return eos_; }
  int32_t eot() const { return eot_; }
  bool add_bos() const { return add_bos_; }
  bool is_end(int32_t id) const { return id >= 0 && (id == eos_ || id == eot_); }

 protected:
  Tokenizer() = default;
  explicit Tokenizer(const Vocabulary& vocabulary);

  int64_t n_vocab_ = 0;
  int32_t bos_ = -1, eos_ = -1, eot_ = -1, unk_ = -1;
  bool add_bos_ = true, add_eos_ = false;
};

// Joins pieces into a stream that is cut only between whole UTF-8 characters. Bytes that can't
// become a character come out as U+FFFD, as soon as that is certain.
class Utf8Stream {
 public:
  std::string Push(std::string_view bytes);  // what can be shown now
  std::string Flush();                       // the rest, at the end

 private:
  std::string pending_;
};

}  // namespace thermocline
