// The steps of solve, one after another.
#include "solver/profile/solve.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "common/model/activation_statistics.h"
#include "common/model/tensor_table.h"
#include "common/util/memory.h"
#include "common/util/replace_file.h"
#include "common/util/status_macros.h"
#include "common/util/topology.h"
#include "coordinator/cli/read_text.h"
#include "coordinator/cli/start_fleet.h"
#include "solver/predictor/write_predictor.h"
#include "solver/profile/folder_plan.h"
#include "solver/profile/gate_scores.h"
#include "solver/profile/measure_quality.h"
#include "solver/profile/plot.h"
#include "solver/profile/run_windows.h"
#include "solver/profile/thresholds.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int64_t kWindow = 1024;             // tokens
constexpr int64_t kThresholdSamples = 16384;  // enough where no predictor is trained
constexpr int64_t kEnoughSamples = 32768;     // to train on, rather than run the text again
constexpr int64_t kLeastSamples = 256;
constexpr int64_t kWindowsAside = 4, kAsideOf = 8;  // so many, but at most one in eight

absl::Status WriteText(const std::string& text, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplaceFile> file, ReplaceFile::Create(path));
  RETURN_IF_ERROR(file->Write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file->Commit();
}

int64_t ModelBytes(const GgufFile& file) {
  int64_t n = 0;
  for (const GgufTensor& tensor : file.tensors()) n += static_cast<int64_t>(tensor.n_bytes);
  return n;
}

int UsableThreads(int64_t n_asked) {
  if (n_asked > 0) return static_cast<int>(n_asked);
  int n = 0;
  for (const NumaNode& node : UsableNodes()) n += static_cast<int>(node.cpus.size());
  return n;
}

std::string Duration(const SolveCost& cost, int n_threads) {
  return fmt::format(
      "{} with {} thread{} (text {:.0f} s, thresholds {:.0f} s, ranks {:.0f} s, training {:.0f} s, "
      "quality {:.0f} s; {:.3g} operations in all)",
      DurationText(cost.total_s(n_threads)), n_threads, n_threads == 1 ? "" : "s",
      cost.forward_s(n_threads), cost.profile_s(n_threads), cost.ranks_s(n_threads),
      cost.training_s(n_threads), cost.quality_s(n_threads),
      cost.forward + cost.profile + cost.ranks + cost.training + cost.quality);
}

}  // namespace

absl::Status Solve::Run() {
  n_threads_ = UsableThreads(options_.n_threads);
  if (options_.is_dry_run) return DryRun();
  RETURN_IF_ERROR(OpenModel());
  ASSIGN_OR_RETURN(folder_, OutputFolder::Create(options_.output_path));
  if (!options_.activation_dir.empty()) {
    RETURN_IF_ERROR(ImportCounts());
  } else {
    RETURN_IF_ERROR(RunModel());
    RETURN_IF_ERROR(MeasureQuality());
    report_.stages_s = progress_->Finish();
  }
  return WriteFolder();
}

absl::Status Solve::DryRun() const {
  ModelShape shape;
  if (!options_.described.shape.empty()) {
    ShapeDescription described = options_.described;
    described.is_relu = options_.hidden_activation == "relu";
    ASSIGN_OR_RETURN(shape, DescribeShape(described));
  } else {
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(options_.model_path));
    ASSIGN_OR_RETURN(shape, ShapeOfGguf(*file));
  }
  SolvePass pass = {.n_tokens = options_.n_tokens,
                    .n_samples = options_.n_tokens,
                    .n_runs = 1,
                    .n_quality = std::min(kWindowsAside * kWindow, options_.n_tokens / kAsideOf),
                    .n_modes = 1,
                    .mean_rank = 0,
                    .n_epochs = static_cast<int>(options_.n_epochs)};
  const bool is_relu = IsRelu(shape.config.activation);
  if (is_relu) pass.n_modes = kMaxSketchBits + (options_.has_predictor ? 1 : 0);
  if (is_relu && options_.has_predictor) {
    const ModelConfig& config = shape.config;
    const double n_weights =
        shape.total_bytes() * 8 / shape.weight_bits * options_.predictor_budget_pct / 100;
    pass.mean_rank =
        n_weights / static_cast<double>(config.n_layers * (config.d_model + config.d_ff));
  }
  return Program::Print(fmt::format("{}: {} tokens, predictor of mean rank {:.0f}: {}\n",
                                    shape.name, pass.n_tokens, pass.mean_rank,
                                    Duration(CountOperations(shape, pass), n_threads_)));
}

absl::Status Solve::OpenModel() {
  ASSIGN_OR_RETURN(model_, ModelHeader::Open(options_.model_path, options_.hidden_activation));
  ops_ = &kernels::ops(kernels::detect_isa());  // all levels give the same bits
  report_.model = model_->id();
  report_.config = model_->config();
  report_.gate_type = Gate(0).type;
  report_.profile.model_hash = model_->file().ContentHash();
  return absl::OkStatus();
}

const GgufTensor& Solve::Gate(int64_t layer) const {
  return *FindRole(model_->file(), Role::kFfnGate, layer);
}

absl::Status Solve::ImportCounts() {
  ASSIGN_OR_RETURN(report_.profile,
                   ImportActivationStatistics(options_.activation_dir, model_->config(),
                                              model_->file().ContentHash()));
  report_.text = options_.activation_dir;
  report_.no_predictor = "firing counts were imported; no FFN inputs to train on";
  return absl::OkStatus();
}

absl::Status Solve::ReadCalibration() {
  std::string path = options_.calibration_path;
  if (path.empty()) {
    ASSIGN_OR_RETURN(path, ShippedCalibrationPath());
  }
  report_.text = path;
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  const CalibrationOptions options = {
      .n_window = std::min({kWindow, model_->config().n_ctx_train, options_.n_tokens}),
      .n_tokens = options_.n_tokens,
      .seed = static_cast<uint64_t>(options_.seed)};
  ASSIGN_OR_RETURN(calibration_, CutCalibration(text, path, model_->tokenizer(), options));
  report_.profile.text_hash = calibration_.text_hash;
  const int64_t n_windows = std::ssize(calibration_.windows);
  const int64_t n_aside =
      n_windows < 2 ? 0 : std::clamp<int64_t>(n_windows / kAsideOf, 1, kWindowsAside);
  set_aside_.assign(calibration_.windows.end() - n_aside, calibration_.windows.end());
  calibration_.windows.resize(calibration_.windows.size() - n_aside);
  program_.Note(fmt::format("calibration on {} tokens of {}", calibration_.n_tokens(), path));
  return absl::OkStatus();
}

int64_t Solve::SampleBytes(int64_t n_layers, int64_t n_samples) const {
  return n_layers * n_samples * model_->config().d_model * static_cast<int64_t>(sizeof(float));
}

absl::Status Solve::PlanPasses() {
  const int64_t n_layers = model_->config().n_layers, n_tokens = calibration_.n_tokens();
  const double asked = options_.sample_memory_gib * kGib;
  const auto budget =
      static_cast<int64_t>(asked > 0 ? asked : static_cast<double>(AvailableMemoryBytes()) / 2);
  n_samples_ = maker_ != nullptr ? n_tokens : std::min(n_tokens, kThresholdSamples);
  n_samples_ = std::min(n_samples_, budget / SampleBytes(1, 1));
  n_first_samples_ = std::min(n_samples_, budget / SampleBytes(n_layers, 1));
  if (n_first_samples_ < std::min(n_tokens, kLeastSamples)) {
    return absl::ResourceExhaustedError(fmt::format(
        "no room for samples: {} of each layer take {:.2f} GiB, and {:.2f} GiB may be used; see "
        "--sample-memory-gb",
        kLeastSamples, static_cast<double>(SampleBytes(n_layers, kLeastSamples)) / kGib,
        static_cast<double>(budget) / kGib));
  }
  if (maker_ == nullptr || n_first_samples_ >= std::min(n_samples_, kEnoughSamples)) {
    n_samples_ = n_first_samples_;
  } else {
    layers_at_once_ = std::min(budget / SampleBytes(1, n_samples_), n_layers);
  }
  SolvePass pass = {.n_tokens = n_tokens,
                    .n_samples = n_samples_,
                    .n_runs = 1,
                    .n_quality = std::ssize(set_aside_) * std::ssize(calibration_.windows[0]),
                    .n_modes = static_cast<int>(ModesToMeasure().size()),
                    .mean_rank = maker_ != nullptr ? maker_->mean_rank() : 0,
                    .n_epochs = static_cast<int>(options_.n_epochs)};
  if (layers_at_once_ > 0) pass.n_runs += (n_layers + layers_at_once_ - 1) / layers_at_once_;
  if (pass.n_runs > 1) {
    program_.Note(fmt::format("the text is run {} times: samples of {} layers fit in {:.1f} GiB",
                              pass.n_runs, layers_at_once_, static_cast<double>(budget) / kGib));
  }
  ASSIGN_OR_RETURN(const ModelShape shape, ShapeOfGguf(model_->file()));
  cost_ = CountOperations(shape, pass);
  program_.Note(Duration(cost_, n_threads_));
  cost_.forward /= static_cast<double>(pass.n_runs);  // of one run, from here on
  progress_ = std::make_unique<SolveProgress>(
      cost_.total_s(n_threads_) +
          static_cast<double>(pass.n_runs - 1) * cost_.forward_s(n_threads_),
      !program_.quiet());
  return absl::OkStatus();
}

absl::Status Solve::RunModel() {
  RETURN_IF_ERROR(ReadCalibration());
  const ModelConfig& config = model_->config();
  report_.profile.recall = static_cast<float>(options_.recall_pct / 100);
  if (!is_relu()) {
    report_.no_predictor = "the model's activation is SiLU: hardly anything is exactly 0";
    program_.Note(fmt::format("no predictor: {}; --sparsity threshold is for such models",
                              report_.no_predictor));
  } else if (!options_.has_predictor) {
    report_.no_predictor = "--no-predictor";
  } else {
    const TrainOptions train = {.n_threads = n_threads_,
                                .type = PredictorType(Gate(0).type),
                                .mass = options_.mass_pct / 100,
                                .n_epochs = static_cast<int>(options_.n_epochs),
                                .seed = static_cast<uint64_t>(options_.seed)};
    const double budget =
        static_cast<double>(ModelBytes(model_->file())) * options_.predictor_budget_pct / 100;
    ASSIGN_OR_RETURN(PredictorMaker maker,
                     PredictorMaker::Create(config, static_cast<int64_t>(budget), train));
    maker_ = std::make_unique<PredictorMaker>(std::move(maker));
  }
  FleetOptions fleet = FleetToStart();
  // Firings are those of mode exact, which gives the same bits; the products of many tokens with
  // all weights are faster in this one.
  fleet.sparsity.mode = "off";
  ASSIGN_OR_RETURN(fleet_, StartFleet(program_, fleet));
  RETURN_IF_ERROR(PlanPasses());
  RETURN_IF_ERROR(ProfileLayers());
  RETURN_IF_ERROR(TrainLayers());
  fleet_.reset();
  return absl::OkStatus();
}

FleetOptions Solve::FleetToStart() const {
  FleetOptions fleet;
  fleet.model_path = options_.model_path;
  fleet.hidden_activation = options_.hidden_activation;
  fleet.isa = options_.isa;
  fleet.n_workers = options_.n_workers;
  fleet.n_threads = options_.n_threads;
  fleet.n_ctx = std::ssize(calibration_.windows[0]);
  return fleet;
}

std::vector<Solve::ModeToMeasure> Solve::ModesToMeasure() {
  MeasuredKl* kl = &report_.profile.kl;
  if (set_aside_.empty()) return {};
  if (!is_relu()) return {{"threshold", 0, &kl->threshold}};
  std::vector<ModeToMeasure> modes;
  for (int32_t bits = 1; bits <= kMaxSketchBits; ++bits) {
    modes.push_back({"sketch", bits, &kl->sketch[bits - 1]});
  }
  if (maker_ != nullptr) modes.push_back({"predict", 0, &kl->predict});
  return modes;
}

absl::Status Solve::MeasureQuality() {
  RETURN_IF_ERROR(WriteProfileAndPredictor());  // as far as they are known, for the fleets
  const std::vector<ModeToMeasure> modes = ModesToMeasure();
  for (const ModeToMeasure& mode : modes) {
    progress_->Begin("quality", cost_.quality_s(n_threads_) / static_cast<double>(modes.size()));
    FleetOptions fleet = FleetToStart();
    fleet.sparsity = {.mode = mode.mode,
                      .sketch_bits = mode.sketch_bits,
                      .predictor_path = folder_->temporary_path()};
    const absl::StatusOr<double> measured =
        MeasureKl(fleet, set_aside_, &StopSignals::stop(),
                  [&](double share) { return progress_->Update(share); });
    if (absl::IsCancelled(measured.status())) return measured.status();
    if (!measured.ok()) {  // what was trained is worth having without it
      report_.quality_error = std::string(measured.status().message());
      program_.Note(fmt::format("quality is not measured: {}", report_.quality_error));
      break;
    }
    *mode.kl = static_cast<float>(*measured);
  }
  return absl::OkStatus();
}

absl::Status Solve::CaptureText(const std::vector<int32_t>& layers, int64_t n_samples,
                                double expected_s) {
  progress_->Begin("text", expected_s);
  const int64_t n_tokens = calibration_.n_tokens();
  RETURN_IF_ERROR(fleet_->StartCapture(layers, n_tokens, n_samples));
  return RunWindows(calibration_, fleet_.get(), [&](int64_t n_done) {
    return progress_->Update(static_cast<double>(n_done) / static_cast<double>(n_tokens));
  });
}

absl::Status Solve::ProfileLayers() {
  const auto n_layers = static_cast<int32_t>(model_->config().n_layers);
  std::vector<int32_t> all(n_layers);
  std::iota(all.begin(), all.end(), 0);
  RETURN_IF_ERROR(CaptureText(all, n_first_samples_, cost_.forward_s(n_threads_)));
  report_.profile.layers.resize(n_layers);
  for (const int32_t layer : all) {
    RETURN_IF_ERROR(ProfileLayer(layer));
    if (!progress_->Update(1)) return absl::CancelledError("stopped by a signal");
  }
  return absl::OkStatus();
}

absl::Status Solve::ProfileLayer(int32_t layer) {
  const auto n_layers = static_cast<double>(model_->config().n_layers);
  progress_->Begin("thresholds and ranks",
                   (cost_.profile_s(n_threads_) + cost_.ranks_s(n_threads_)) / n_layers);
  ASSIGN_OR_RETURN(Fleet::CapturedLayer captured, fleet_->ReadCapture(layer));
  const int64_t d_model = model_->config().d_model;
  const MatrixView samples = {captured.samples.data(), std::ssize(captured.samples) / d_model,
                              d_model};
  const auto [calibration, held_out] = SplitSamples(samples);
  const GateScores gate(model_->file(), Gate(layer), is_relu(), *ops_, n_threads_);
  LayerProfile& profile = report_.profile.layers[layer];
  const ThresholdOptions thresholds = {.activation = model_->config().activation,
                                       .recall = options_.recall_pct / 100,
                                       .skip_share = options_.skip_pct / 100,
                                       .n_threads = n_threads_};
  SetThresholds(gate, calibration, held_out, thresholds, &profile);
  if (is_relu()) {
    profile.fired = std::move(captured.fired);
    report_.profile.n_tokens = captured.n_tokens;
  } else {
    profile.fired = CountAboveMagnitude(gate, samples, profile, n_threads_);
    report_.profile.n_tokens = samples.n_rows;
  }
  report_.n_samples = samples.n_rows;
  return maker_ != nullptr ? maker_->Measure(samples, gate.Values(n_threads_).view())
                           : absl::OkStatus();
}

absl::Status Solve::TrainLayers() {
  if (maker_ == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(maker_->ChooseRanks());
  const ModelConfig& config = model_->config();
  const auto n_layers = static_cast<int32_t>(config.n_layers);
  for (int32_t layer = 0; layer < n_layers; ++layer) {
    if (layers_at_once_ > 0 && layer % layers_at_once_ == 0) {
      std::vector<int32_t> layers(std::min<int64_t>(layers_at_once_, n_layers - layer));
      std::iota(layers.begin(), layers.end(), layer);
      RETURN_IF_ERROR(CaptureText(layers, n_samples_, cost_.forward_s(n_threads_)));
    }
    progress_->Begin("predictor", cost_.training_s(n_threads_) / n_layers);
    ASSIGN_OR_RETURN(const Fleet::CapturedLayer captured, fleet_->ReadCapture(layer));
    const MatrixView samples = {captured.samples.data(),
                                std::ssize(captured.samples) / config.d_model, config.d_model};
    const Matrix gate =
        GateScores(model_->file(), Gate(layer), /*has_sketches=*/false, *ops_, n_threads_)
            .Values(n_threads_);
    ASSIGN_OR_RETURN(TrainedLayer trained,
                     maker_->Train(layer, samples, gate.view(),
                                   [&](double share) { return progress_->Update(share); }));
    const auto n_bytes = static_cast<int64_t>(trained.fc1.bytes.size() + trained.fc2.bytes.size() +
                                              trained.bias.size() * sizeof(float));
    report_.predictor.push_back({.rank = trained.fc1.n_rows,
                                 .n_bytes = n_bytes,
                                 .selection = trained.selection,
                                 .first_loss = trained.first_loss,
                                 .loss = trained.loss});
    trained_.push_back(std::move(trained));
  }
  report_.n_samples = n_samples_;
  return absl::OkStatus();
}

absl::Status Solve::WriteProfileAndPredictor() {
  RETURN_IF_ERROR(WriteProfile(report_.profile, folder_->FilePath("profile.gguf")));
  if (trained_.empty()) return absl::OkStatus();
  return WritePredictor(trained_, report_.profile.model_hash, folder_->FilePath("predictor.gguf"));
}

absl::Status Solve::WriteFolder() {
  RETURN_IF_ERROR(WriteProfileAndPredictor());
  // The work of an hour is not thrown away because the machine described is too small.
  const absl::Status plan = WriteFolderPlan(options_, folder_->temporary_path());
  if (!plan.ok()) {
    report_.plan_error = std::string(plan.message());
    program_.Note(fmt::format("no plan.json is written: {}", report_.plan_error));
  }
  RETURN_IF_ERROR(WriteText(ReportJson(report_), folder_->FilePath(kReportFile)));
  if (!options_.plot_path.empty()) {
    const std::string title = fmt::format("{}: firings of the hottest neurons", report_.model);
    RETURN_IF_ERROR(WriteText(LocalitySvg(report_.profile, title), options_.plot_path));
  }
  if (StopSignals::IsStopped()) return absl::CancelledError("stopped by a signal");
  RETURN_IF_ERROR(folder_->Commit());
  if (program_.quiet()) return absl::OkStatus();
  return Program::Print(fmt::format("{}{} is ready: main -m {} --predictor-path {}\n",
                                    ReportTable(report_), options_.output_path, options_.model_path,
                                    options_.output_path));
}

}  // namespace thermocline
