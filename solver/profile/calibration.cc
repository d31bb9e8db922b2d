// Cutting a text, and finding the shipped one.
#include "solver/profile/calibration.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "common/util/check.h"

namespace thermocline {
namespace {

std::string Sha256(const std::string& text) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned int n_bytes = 0;
  THERMOCLINE_CHECK(EVP_Digest(text.data(), text.size(), digest, &n_bytes, EVP_sha256(), nullptr) ==
                    1);
  return fmt::format("{:02x}", fmt::join(digest, digest + n_bytes, ""));
}

}  // namespace

int64_t Calibration::n_tokens() const {
  int64_t n = 0;
  for (const std::vector<int32_t>& window : windows) n += std::ssize(window);
  return n;
}

absl::StatusOr<Calibration> CutCalibration(const std::string& text, const std::string& name,
                                           const Tokenizer& tokenizer,
                                           const CalibrationOptions& options) {
  const std::vector<int32_t> tokens =
      tokenizer.Encode(text, /*add_special=*/false, /*parse_special=*/false);
  const bool has_bos = tokenizer.add_bos() && tokenizer.bos() >= 0;
  const int64_t n_of_text = options.n_window - (has_bos ? 1 : 0);
  const int64_t n_most = std::ssize(tokens) / std::max<int64_t>(n_of_text, 1);
  if (n_most == 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} tokens, and a window takes {}: give a longer text with "
                    "--calibration",
                    name, tokens.size(), n_of_text));
  }
  const int64_t n = std::clamp<int64_t>(options.n_tokens / options.n_window, 1, n_most);
  Calibration calibration = {.text_hash = Sha256(text), .windows = {}};
  for (int64_t i = 0; i < n; ++i) {
    const auto begin =
        tokens.begin() + i * (std::ssize(tokens) - n_of_text) / std::max<int64_t>(n - 1, 1);
    std::vector<int32_t>& window = calibration.windows.emplace_back();
    if (has_bos) window.push_back(tokenizer.bos());
    window.insert(window.end(), begin, begin + n_of_text);
  }
  std::mt19937_64 random(options.seed);
  for (int64_t i = n - 1; i > 0; --i) {  // std::shuffle differs between libraries
    std::swap(calibration.windows[i], calibration.windows[random() % static_cast<uint64_t>(i + 1)]);
  }
  return calibration;
}

absl::StatusOr<std::string> ShippedCalibrationPath() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path path =
      program.parent_path().parent_path() / "share" / "thermocline" / "calibration.txt";
  if (fs::exists(path, error)) return path.string();
  return absl::NotFoundError(fmt::format(
      "the shipped calibration text is not at {}: give one with --calibration", path.string()));
}

}  // namespace thermocline
