// The content hash of a GGUF file: which bytes it covers is said at GgufFile::ContentHash.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "common/gguf/gguf_file.h"
#include "common/util/check.h"

namespace thermocline {
namespace {

constexpr size_t kTensorBytes = 4096;  // hashed of each tensor

class Sha256 {
 public:
  Sha256() { THERMOCLINE_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1); }
  void Add(absl::Span<const uint8_t> bytes) {
    THERMOCLINE_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  std::string Hex() {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned int n_bytes = 0;
    THERMOCLINE_CHECK(EVP_DigestFinal_ex(context_.get(), digest, &n_bytes) == 1);
    return fmt::format("{:02x}", fmt::join(digest, digest + n_bytes, ""));
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

}  // namespace

const std::string& GgufFile::ContentHash() const {
  std::call_once(hash_once_, [this] {
    Sha256 hash;
    hash.Add(bytes_.first(header_bytes_));
    for (const GgufTensor& tensor : tensors_) {
      const absl::Span<const uint8_t> bytes = TensorBytes(tensor);
      hash.Add(bytes.first(std::min(bytes.size(), kTensorBytes)));
    }
    content_hash_ = hash.Hex();
  });
  return content_hash_;
}

}  // namespace thermocline
