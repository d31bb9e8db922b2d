// What ties a plan to a profile: the hash of its order, and the way back from the order to the
// file.
#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "common/plan/plan.h"
#include "common/util/check.h"
#include "fmt/format.h"

namespace thermocline {

const char* RankKindName(RankKind kind) { return kind == RankKind::kGpu ? "gpu" : "cpu"; }

std::string ProfileHash(const Profile& profile) {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  THERMOCLINE_CHECK(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  const auto add = [&](const void* data, size_t n_bytes) {
    THERMOCLINE_CHECK(EVP_DigestUpdate(context.get(), data, n_bytes) == 1);
  };
  const std::string names =
      fmt::format("{} {} {}", profile.model_hash, profile.text_hash, profile.layers.size());
  add(names.data(), names.size());
  for (const LayerProfile& layer : profile.layers) {
    add(layer.fired.data(), layer.fired.size() * sizeof(layer.fired[0]));
  }
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned int n_bytes = 0;
  THERMOCLINE_CHECK(EVP_DigestFinal_ex(context.get(), digest, &n_bytes) == 1);
  return fmt::format("{:02x}", fmt::join(digest, digest + n_bytes, ""));
}

std::vector<Range> FileNeurons(const LayerPlan& layer, int32_t rank,
                               const std::vector<int32_t>& order) {
  const std::vector<Range>& ranges = layer.neurons[rank];
  std::vector<int64_t> neurons;
  for (const Range& range : ranges) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      neurons.push_back(order.empty() ? i : order[i]);
    }
  }
  std::sort(neurons.begin(), neurons.end());
  std::vector<Range> runs;
  for (const int64_t neuron : neurons) {
    if (!runs.empty() && runs.back().end == neuron) {
      ++runs.back().end;
    } else {
      runs.push_back({neuron, neuron + 1});
    }
  }
  return runs;
}

}  // namespace thermocline
