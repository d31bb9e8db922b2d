// See fake_stepper.h.
#include "tests/testing/fake_stepper.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace thermocline::testing {
namespace {

constexpr int32_t kBos = 1, kEos = 2, kFirstByte = 3;

}  // namespace

ByteTokenizer::ByteTokenizer(bool has_bos) {
  n_vocab_ = kFirstByte + 256;
  unk_ = 0;
  bos_ = has_bos ? kBos : -1;
  eos_ = kEos;
  add_bos_ = has_bos;
}

std::vector<int32_t> ByteTokenizer::Encode(std::string_view text, bool add_special,
                                           bool parse_special) const {
  std::vector<int32_t> ids;
  if (add_special && add_bos()) ids.push_back(kBos);
  for (unsigned char byte : text) ids.push_back(kFirstByte + byte);
  return ids;
}

std::string ByteTokenizer::Piece(int32_t id, bool special) const {
  if (id < kFirstByte || id >= n_vocab()) return "";
  return std::string(1, static_cast<char>(id - kFirstByte));
}

std::string ByteTokenizer::Decode(const std::vector<int32_t>& ids, bool special) const {
  std::string text;
  for (int32_t id : ids) text += Piece(id, special);
  return text;
}

FakeStepper::FakeStepper(std::string text, int64_t n_ctx, int64_t batch_size, bool has_bos)
    : tokenizer_(has_bos), n_ctx_(n_ctx), batch_size_(batch_size) {
  wanted_ = tokenizer_.Encode(text, /*add_special=*/true, /*parse_special=*/false);
  wanted_.push_back(kEos);
}

v1::Model FakeStepper::Describe() const {
  v1::Model model;
  model.set_id("fake.gguf");
  model.set_n_ctx(n_ctx_);
  return model;
}

absl::Status FakeStepper::Run(absl::Span<const TokenInput> tokens) {
  if (absl::Status status = before_step(); !status.ok()) return status;
  if (static_cast<int64_t>(tokens.size()) > batch_size_) return absl::InternalError("step too big");
  step_sizes.push_back(static_cast<int64_t>(tokens.size()));
  for (const TokenInput& token : tokens) modes.push_back(token.mode);
  rows_.clear();
  for (const TokenInput& input : tokens) {
    if (input.position > static_cast<int64_t>(cache_.size()) || input.position >= n_ctx_) {
      return absl::InternalError("a position with nothing before it, or beyond the context");
    }
    cache_.resize(input.position);
    cache_.push_back(input.token);
    if (!input.wants_logits) continue;
    AddRow();
    needed_only_best.push_back(input.needs_only_best);
  }
  return absl::OkStatus();
}

void FakeStepper::AddRow() {
  std::vector<float>& row = rows_.emplace_back(tokenizer_.n_vocab(), 0.0f);
  row[kFirstByte + '.'] = 10.0f;
  const bool follows =
      cache_.size() < wanted_.size() && std::equal(cache_.begin(), cache_.end(), wanted_.begin());
  row[follows ? wanted_[cache_.size()] : kFirstByte + '?'] = 20.0f;
  if (logits_are_nan) std::fill(row.begin(), row.end(), NAN);
}

}  // namespace thermocline::testing
