// The corpus of GGUF files, nearly all broken, that the fuzzer starts from and gguf_corpus_test
// opens: each with the error it must end in.
#pragma once

#include <string>
#include <vector>

#include "tests/testing/gguf_builder.h"

namespace thermocline::testing {

struct CorpusFile {
  std::string name;  // of the file in tests/fuzz/corpus/gguf
  Bytes bytes;
  std::string error;  // a part of the error's text; "" when the file is a whole model
};

std::vector<CorpusFile> GgufCorpus();

}  // namespace thermocline::testing
