// Writes the GGUF corpus: make_corpus tests/fuzz/corpus/gguf. What is in it: gguf_corpus.cc.
#include <cstdio>
#include <fstream>
#include <string>

#include "tests/fuzz/gguf_corpus.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_corpus FOLDER\n");
    return 1;
  }
  for (const auto& file : thermocline::testing::GgufCorpus()) {
    std::ofstream out(std::string(argv[1]) + "/" + file.name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.bytes.data()),
              static_cast<std::streamsize>(file.bytes.size()));
    out.close();
    if (!out.good()) {
      std::fprintf(stderr, "make_corpus: cannot write %s in %s\n", file.name.c_str(), argv[1]);
      return 1;
    }
  }
  return 0;
}
