// `perplexity`: how well a model foretells a text, and how far it is from another one.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>

#include "common/util/status_macros.h"
#include "coordinator/cli/fleet_flags.h"
#include "coordinator/cli/kl_base_file.h"
#include "coordinator/cli/perplexity_math.h"
#include "coordinator/cli/program.h"
#include "coordinator/cli/read_text.h"
#include "coordinator/cli/refused_flags.h"
#include "coordinator/cli/scorer.h"
#include "coordinator/cli/start_fleet.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Perplexity of a text, as llama.cpp computes it: chunks of --ctx-size tokens, the first of\n"
    "each replaced by BOS, the second half scored.\n"
    "  perplexity -m MODEL.gguf -f TEXT\n"
    "  perplexity -m BASE.gguf -f TEXT --kl-divergence-base FILE    (saves FILE)\n"
    "  perplexity -m OTHER.gguf --kl-divergence-base FILE --kl-divergence";
constexpr int64_t kDefaultContext = 512;
constexpr int64_t kMinContext = 8;
// Bounds the segment: 64 rows of 128 k logits are 32 MiB, and steps of 64 tokens still are GEMMs.
constexpr int64_t kLogitRows = 64;

struct PerplexityOptions {
  FleetFlags fleet;
  std::string text_path;
  int64_t n_chunks = -1;
  std::string base_path;
  bool compare = false;
  bool has_ctx = false;  // given by the user

  absl::Status Finish(const FlagSet& flags) {
    RETURN_IF_ERROR(fleet.Finish(flags));
    if (compare && base_path.empty()) {
      return absl::InvalidArgumentError("--kl-divergence needs --kl-divergence-base FILE");
    }
    if (text_path.empty() && !compare) {
      return absl::InvalidArgumentError("no text given; use -f FILE");
    }
    if (fleet.options.n_ctx == 0) fleet.options.n_ctx = kDefaultContext;
    if (fleet.options.n_ctx < kMinContext) {
      return absl::InvalidArgumentError(
          fmt::format("--ctx-size must be at least {} here", kMinContext));
    }
    fleet.options.max_logit_rows = kLogitRows;
    return absl::OkStatus();
  }
};

// What is scored, and what it is compared with or saved to.
struct Work {
  KlBaseHeader text;
  std::unique_ptr<KlBaseReader> base;
  std::unique_ptr<KlBaseWriter> saved;
};

// Redraws one line on a terminal; elsewhere a line for each chunk.
class RunningEstimate {
 public:
  RunningEstimate(const Program& program, int64_t n_chunks)
      : program_(program), n_chunks_(n_chunks), is_terminal_(isatty(STDERR_FILENO) == 1) {}
  ~RunningEstimate() {
    if (drawn_) std::fputs("\n", stderr);
  }

  void Update(int64_t n_done, const MeanOf& nll) {
    if (program_.quiet()) return;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    const double left_s = spent.count() / n_done * (n_chunks_ - n_done);
    const Estimate perplexity = Perplexity(nll);
    const std::string line =
        fmt::format("{}chunk {} of {}: PPL = {:.4f} +/- {:.4f}, {:.0f} s left{}",
                    is_terminal_ ? "\r\033[K" : "", n_done, n_chunks_, perplexity.value,
                    perplexity.error, left_s, is_terminal_ ? "" : "\n");
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
    drawn_ = is_terminal_;
  }

 private:
  const Program& program_;
  const int64_t n_chunks_;
  const bool is_terminal_;
  bool drawn_ = false;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

absl::StatusOr<KlBaseHeader> ReadChunks(const PerplexityOptions& options,
                                        const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(options.text_path));
  KlBaseHeader chunks = {.n_vocab = tokenizer.n_vocab(),
                         .n_ctx = options.fleet.options.n_ctx,
                         .n_chunks = 0,
                         .tokens = tokenizer.Encode(text, /*add_special=*/false,
                                                    /*parse_special=*/false)};
  chunks.n_chunks = static_cast<int64_t>(chunks.tokens.size()) / chunks.n_ctx;
  if (options.n_chunks > 0) chunks.n_chunks = std::min(chunks.n_chunks, options.n_chunks);
  if (chunks.n_chunks == 0) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' has {} tokens, less than one chunk of {}; give a longer text or a smaller "
        "--ctx-size",
        options.text_path, chunks.tokens.size(), chunks.n_ctx));
  }
  chunks.tokens.resize(chunks.n_chunks * chunks.n_ctx);
  return chunks;
}

// The base's own text, checked against what else the user said.
absl::StatusOr<Work> CompareWork(const PerplexityOptions& options, const Tokenizer& tokenizer,
                                 std::unique_ptr<KlBaseReader> base) {
  KlBaseHeader text = base->header();
  if (text.n_vocab != tokenizer.n_vocab()) {
    return absl::InvalidArgumentError(
        fmt::format("the base '{}' has a vocabulary of {} tokens, this model one of {}",
                    options.base_path, text.n_vocab, tokenizer.n_vocab()));
  }
  if (options.n_chunks > 0) text.n_chunks = std::min(text.n_chunks, options.n_chunks);
  text.tokens.resize(text.n_chunks * text.n_ctx);
  if (!options.text_path.empty()) {
    ASSIGN_OR_RETURN(KlBaseHeader given, ReadChunks(options, tokenizer));
    given.tokens.resize(std::min(given.tokens.size(), text.tokens.size()));
    if (given.tokens != text.tokens) {
      return absl::InvalidArgumentError(
          fmt::format("the base '{}' was computed on another text than '{}'", options.base_path,
                      options.text_path));
    }
  }
  return Work{std::move(text), std::move(base), nullptr};
}

absl::Status Score(const Program& program, Fleet* fleet, Work* work) {
  const int64_t n_ctx = work->text.n_ctx, n_vocab = work->text.n_vocab;
  Scorer scorer(fleet, fleet->max_logit_rows());
  MeanOf nll;
  Divergence divergence;
  std::vector<float> base(n_vocab);
  RunningEstimate running(program, work->text.n_chunks);
  for (int64_t chunk = 0; chunk < work->text.n_chunks; ++chunk) {
    const absl::Span<const int32_t> tokens =
        absl::MakeConstSpan(work->text.tokens).subspan(chunk * n_ctx, n_ctx);
    RETURN_IF_ERROR(
        scorer.ScoreChunk(tokens, [&](int64_t position, const float* log_probs) -> absl::Status {
          const int32_t next = tokens[position + 1];
          nll.Add(-log_probs[next]);
          if (work->saved) {
            RETURN_IF_ERROR(work->saved->Append({log_probs, log_probs + n_vocab}));
          }
          if (work->base) {
            RETURN_IF_ERROR(work->base->Read(&base));
            divergence.Add(base.data(), log_probs, n_vocab, next);
          }
          return StopSignals::stop() ? absl::CancelledError("stopped by a signal")
                                     : absl::OkStatus();
        }));
    running.Update(chunk + 1, nll);
  }
  if (work->saved) RETURN_IF_ERROR(work->saved->Finish());
  const Estimate perplexity = Perplexity(nll);
  ASSIGN_OR_RETURN(const FleetTotals totals, fleet->Totals());
  const std::string sparsity =
      totals.leaves_out() ? "Sparsity: " + totals.Describe() + "\n" : std::string();
  return Program::Print(fmt::format("{}{}Final estimate: PPL = {:.4f} +/- {:.5f}\n",
                                    divergence.Report(), sparsity, perplexity.value,
                                    perplexity.error));
}

absl::Status Measure(const Program& program, PerplexityOptions options) {
  std::unique_ptr<KlBaseReader> base;
  if (options.compare) {
    ASSIGN_OR_RETURN(base, KlBaseReader::Open(options.base_path));
    if (options.has_ctx && options.fleet.options.n_ctx != base->header().n_ctx) {
      return absl::InvalidArgumentError(
          fmt::format("the base '{}' has chunks of {} tokens, --ctx-size says {}",
                      options.base_path, base->header().n_ctx, options.fleet.options.n_ctx));
    }
    options.fleet.options.n_ctx = base->header().n_ctx;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, StartFleet(program, options.fleet.options));
  Work work;
  if (base != nullptr) {
    ASSIGN_OR_RETURN(work, CompareWork(options, fleet->tokenizer(), std::move(base)));
  } else {
    ASSIGN_OR_RETURN(work.text, ReadChunks(options, fleet->tokenizer()));
    if (!options.base_path.empty()) {
      ASSIGN_OR_RETURN(work.saved, KlBaseWriter::Create(options.base_path, work.text));
    }
  }
  return Score(program, fleet.get(), &work);
}

int Main(int argc, char** argv) {
  Program program("perplexity");
  PerplexityOptions options;
  options.fleet.options.n_ctx = kDefaultContext;
  FlagSet flags("perplexity", kUsage);
  flags.Group("Text");
  flags.String({"-f", "--file"}, "FILE", &options.text_path, "the text");
  flags.Int({"--chunks"}, "N", &options.n_chunks, -1, 1 << 18, "of the text, at most; -1: all");
  flags.String(
      {"--kl-divergence-base"}, "FILE", &options.base_path,
      "save the model's log-probabilities, 4 bytes for each token of the vocabulary and each "
      "scored position; with --kl-divergence: read them");
  flags.Bool({"--kl-divergence"}, &options.compare, "compare this model with the base");
  AddFleetFlags(&flags, &options.fleet);
  AddPlacementFlags(&flags, &options.fleet.options);
  AddRefusedFleetFlags(&flags);
  flags.Refused({"--ppl-stride"}, true, "chunks never overlap here");
  flags.Refused({"--hellaswag"}, false, "only perplexity and divergence are measured");
  const std::optional<int> exit_code = program.ReadFlags(&flags, argc, argv, [&] {
    options.has_ctx = flags.IsSet("--ctx-size");
    return options.Finish(flags);
  });
  if (exit_code.has_value()) return *exit_code;
  program.SetVerbosity(options.fleet.quiet, options.fleet.verbose);
  return program.Finish(Measure(program, options));
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
