// The table of fleet flags, and how their words become FleetOptions.
#include "coordinator/cli/fleet_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/plan/plan.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxContext = int64_t{1} << 24;
constexpr int64_t kMaxBatch = 1 << 14;
constexpr int64_t kMaxTimeoutS = 24 * 3600;
constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr double kMinBudgetBytes = 0.001 * kGib;

absl::Status ParseGpuLayers(const std::string& text, int64_t* value) {
  if (text == "auto") {
    *value = kAutoLayers;
    return absl::OkStatus();
  }
  if (text == "all") {
    *value = kAllLayers;
    return absl::OkStatus();
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (error != std::errc() || end != text.data() + text.size() || *value < -1) {
    return absl::InvalidArgumentError("give a number of layers, 'auto' or 'all'");
  }
  if (*value == -1) *value = kAutoLayers;  // as PowerInfer's default has it
  return absl::OkStatus();
}

// Attention here never holds a whole row of scores, which is what users of this flag ask for.
absl::Status ParseFlashAttention(const std::string& text) {
  if (text == "on" || text == "auto" || text == "1") return absl::OkStatus();
  return absl::InvalidArgumentError(
      "attention is always computed by tiles here; give 'on' or 'auto'");
}

}  // namespace

void AddFleetFlags(FlagSet* flags, FleetFlags* values) {
  FleetOptions* options = &values->options;
  options->gpu_device = "auto";
  flags->Group("Model and fleet");
  flags->String({"-m", "--model"}, "FILE", &options->model_path, "the model, a GGUF file");
  flags->Int({"-c", "--ctx-size"}, "tokens", &options->n_ctx, 0, kMaxContext,
             "tokens that a session can hold; 0: as the model was trained, with GPUs 4096 at most");
  flags->Int({"-b", "--batch-size"}, "tokens", &options->batch_size, 1, kMaxBatch,
             "tokens of the prompt that are computed in one step, at most");
  flags->Choice({"--kv-type"}, {"f16", "f32", "q8_0"}, &options->kv_type,
                "numbers of the KV cache; f32 on CPUs only, q8_0 on GPUs only");
  flags->Bool({"--memory-f32"}, &values->memory_f32, "the same as --kv-type f32");
  flags->Choice({"--activations"}, {"int8", "f32"}, &values->activations,
                "numbers that activations are brought to before a product; f32 is slow, for tests");
  flags->String({"--predictor-path"}, "DIR", &options->sparsity.predictor_path,
                "folder that solve wrote: profile and predictor");
  flags->Int({"--sketch-bits"}, "N", &values->sketch_bits, 0, kMaxSketchBits,
             "bits of a gate weight that --sparsity sketch reads first; 0: chosen for each layer");
  flags->Float({"--quality"}, "PCT", &options->sparsity.quality_pct, 0, 100,
               "--sparsity auto: by how much perplexity may rise, as solve measured it");
  flags->Bool({"--measure-recall"}, &options->sparsity.measures_recall,
              "also compute what is ruled out, and say what was missed; slow");
  flags->String({"--hidden-activation"}, "NAME", &options->hidden_activation,
                "silu or relu, instead of what the file says");
  flags->String({"--plan"}, "FILE", &options->plan_path,
                "who holds which shard; made or edited by hand");
  flags->Custom(
      {"-ngl", "--gpu-layers", "--n-gpu-layers"}, "N",
      [options](const std::string& text) { return ParseGpuLayers(text, &options->n_gpu_layers); },
      "layers to keep on GPUs as a whole: a number, all, or auto (what is fastest)");
  flags->String({"--gpu-device", "-dev", "--device"}, "LIST", &options->gpu_device,
                "GPUs to use: auto (all cards), none, or cuda:N and emulated, separated by commas");
  flags->Float({"--vram-budget"}, "GiB", &values->vram_budget_gib, -1, 1e6,
               "memory of each GPU that may be taken, at most; -1: what is free, less 0.25");
  flags->Bool({"--reset-gpu-index"}, &values->reset_gpu_index,
              "accepted: without --plan, the plan is made anew at every start");
  flags->BoolOff({"--disable-gpu-index"}, &options->splits_ffn,
                 "split no layer's neurons between GPUs and CPUs: whole layers only");
  flags->Int({"--worker-timeout"}, "seconds", &values->worker_timeout_s, 1, kMaxTimeoutS,
             "without progress for so long, a step is given up and the worker is named");
  flags->Custom({"-fa", "--flash-attn"}, "on|auto", ParseFlashAttention,
                "accepted: attention is always computed by tiles");
  flags->BoolOff({"--no-mmap"}, &values->mmap,
                 "accepted: workers always copy their shards into memory of their own");
  flags->Group("TLS");
  flags->String({"--tls-ca"}, "FILE", &options->tls_ca,
                "PEM: whom to trust; with TLS, both sides show a certificate");
  flags->String({"--tls-cert"}, "FILE", &options->tls_cert, "PEM: the certificate to show others");
  flags->String({"--tls-key"}, "FILE", &options->tls_key, "PEM: the key of --tls-cert");
  flags->Group("Output");
  flags->String({"--trace"}, "FILE", &options->trace_path,
                "where to write, at the end, when what happened in the last steps: for "
                "ui.perfetto.dev");
  flags->Bool({"--quiet", "-q"}, &values->quiet, "nothing but results and errors");
  flags->Bool({"--verbose", "-v"}, &values->verbose, "say more of what happens");
}

void AddPlacementFlags(FlagSet* flags, FleetOptions* options) {
  flags->Group("Workers and mode");
  flags->Int(
      {"-t", "--threads"}, "N", &options->n_threads, -1, kMaxThreads,
      "threads of all local CPU workers together; 0 or -1: the CPUs that this process may use");
  flags->Int({"--workers"}, "N", &options->n_workers, 0, kMaxRanks,
             "local workers to start; 0: one for each NUMA node");
  flags->Choice({"--transport"}, {"auto", "shm", "grpc"}, &options->transport,
                "how partial sums travel: shared memory or gRPC");
  flags->Choice({"--isa"}, {"auto", "reference", "avx2", "avx512"}, &options->isa,
                "kernels to use; auto: the best that this CPU has");
  flags->Choice({"--sparsity"}, {"auto", "off", "exact", "predict", "sketch", "threshold"},
                &options->sparsity.mode,
                "which neurons are left out (README, Sparsity); auto: as the plan says, or what is "
                "cheapest of what there is");
}

absl::Status FleetFlags::Finish(const FlagSet& flags) {
  if (options.model_path.empty()) {
    return absl::InvalidArgumentError("no model given; use -m FILE.gguf");
  }
  if (reset_gpu_index && !options.plan_path.empty()) {
    return absl::InvalidArgumentError(
        "--reset-gpu-index does not go with --plan: give one of them");
  }
  if (vram_budget_gib >= 0 && vram_budget_gib * kGib < kMinBudgetBytes) {
    return absl::InvalidArgumentError(
        "--vram-budget is in GiB, 0.001 or more, or -1 for what is free; for no GPU take "
        "--gpu-device none");
  }
  if (vram_budget_gib > 0) options.vram_budget_bytes = vram_budget_gib * kGib;
  for (const char* name : {"--threads", "--workers", "--vram-budget", "--gpu-layers"}) {
    if (!options.plan_path.empty() && flags.IsOnCommandLine(name)) {
      return absl::InvalidArgumentError(
          fmt::format("{} does not go with --plan: the plan says who holds what, and how many "
                      "workers and threads there are",
                      name));
    }
  }
  options.sparsity.sketch_bits = static_cast<int32_t>(sketch_bits);
  if (memory_f32) options.kv_type = "f32";
  options.f32_activations = activations == "f32";
  options.stall_timeout_ms = worker_timeout_s * 1000;
  options.n_threads = std::max<int64_t>(options.n_threads, 0);
  return absl::OkStatus();
}

}  // namespace thermocline
