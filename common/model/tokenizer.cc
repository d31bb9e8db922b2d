// Chooses the tokenizer that a file asks for. Another kind is another row here and a file like
// spm.cc.
#include "common/model/tokenizer.h"

#include <fmt/format.h>

#include "common/model/spm.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

struct TokenizerKind {
  const char* name;  // as in tokenizer.ggml.model
  absl::StatusOr<std::unique_ptr<Tokenizer>> (*create)(const GgufFile&);
};
constexpr TokenizerKind kTokenizerKinds[] = {
    {"llama", &SpmTokenizer::Create},
};

}  // namespace

Tokenizer::Tokenizer(const Vocabulary& vocabulary)
    : n_vocab_(vocabulary.size()),
      bos_(vocabulary.bos),
      eos_(vocabulary.eos),
      eot_(vocabulary.eot),
      unk_(vocabulary.unk),
      add_bos_(vocabulary.add_bos),
      add_eos_(vocabulary.add_eos) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string wanted, file.GetString("tokenizer.ggml.model"));
  std::string supported;
  for (const TokenizerKind& kind : kTokenizerKinds) {
    if (wanted == kind.name) return kind.create(file);
    supported += (supported.empty() ? "" : ", ") + Quoted(kind.name);
  }
  return absl::UnimplementedError(fmt::format("{}: key tokenizer.ggml.model is {}; supported: {}",
                                              file.path(), Quoted(wanted), supported));
}

}  // namespace thermocline
