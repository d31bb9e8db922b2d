// The content hash against SHA-256 over the bytes that it says it covers.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "common/gguf/gguf_file.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

using testing::Bytes;

std::string HashOf(const Bytes& bytes) {
  const auto file = GgufFile::Parse(bytes, "memory");
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? (*file)->ContentHash() : "";
}

std::string Sha256(const Bytes& bytes) {
  uint8_t digest[32];
  EXPECT_EQ(EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_sha256(), nullptr), 1);
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

testing::GgufBuilder TwoTensors() {
  return testing::GgufBuilder()
      .String("general.name", "hash")
      .Tensor("small", TensorType::kF32, {5}, Bytes(20, 1))
      .Tensor("large", TensorType::kQ8_0, {32 * 200}, Bytes(34 * 200, 2));
}

TEST(ContentHash, CoversHeaderTableAndTheFirst4KiBOfEachTensor) {
  Bytes covered = TwoTensors().BuildHeader();
  covered.insert(covered.end(), 20, 1);
  covered.insert(covered.end(), 4096, 2);
  EXPECT_EQ(HashOf(TwoTensors().Build()), Sha256(covered));
}

TEST(ContentHash, OfAFileWithoutTensorsIsThatOfItsHeader) {
  const Bytes bytes = testing::GgufBuilder().String("general.name", "vocabulary").Build();
  EXPECT_EQ(HashOf(bytes), Sha256(bytes));
}

TEST(ContentHash, ChangesWithAnyByteThatItCovers) {
  const Bytes bytes = TwoTensors().Build();
  const size_t large = bytes.size() - 34 * 200;
  const std::string before = HashOf(bytes);
  const size_t name = TwoTensors().BuildHeader().size() - 40;  // inside the tensor table
  for (const size_t position : {large, large + 4095, large - 64, name}) {
    Bytes changed = bytes;
    changed[position] ^= 1;
    const auto file = GgufFile::Parse(changed, "memory");
    if (file.ok()) {
      EXPECT_NE((*file)->ContentHash(), before) << position;
    }
  }
  Bytes beyond = bytes;
  beyond[large + 4096] ^= 1;
  EXPECT_EQ(HashOf(beyond), before);
}

}  // namespace
}  // namespace thermocline
