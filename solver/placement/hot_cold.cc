// The planner: what is decided in which order. The neurons' places are neuron_placement's work.
#include "solver/placement/hot_cold.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "solver/placement/neuron_placement.h"
#include "solver/placement/split.h"
#include "solver/placement/stripes.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

int64_t SessionContext(const PlacementRequest& request) {
  return request.n_session_ctx > 0 ? request.n_session_ctx : request.n_ctx;
}

class Planner {
 public:
  // gpu_ctx: as the plan's.
  Planner(const ModelShape& shape, const Hardware& hardware, const FiringKnowledge& firing,
          const std::vector<LayerMode>& modes, const PlacementRequest& request, int64_t gpu_ctx,
          bool may_decide)
      : shape_(shape),
        hardware_(hardware),
        request_(request),
        cost_(shape_, hardware_, request_.engine, request_.n_ctx, request.n_session_ctx),
        n_ranks_(static_cast<int32_t>(hardware.ranks.size())),
        may_decide_(may_decide) {
    fleet_.plan.gpu_ctx = gpu_ctx;
    fleet_.firing = firing;
    fleet_.modes = modes;
    fleet_.ranks.resize(n_ranks_);
    for (size_t l = 0; l < modes.size(); ++l) {
      fleet_.touched.push_back(
          TouchedBytes(shape.layers[l], shape.weight_bits, firing.tables[l], modes[l]));
    }
  }

  absl::StatusOr<PlannedFleet> Make(int64_t n_whole) {
    RETURN_IF_ERROR(Prepare());
    RETURN_IF_ERROR(PlaceWholeLayers(n_whole));
    PlaceOutput();
    PlaceAttention();
    RETURN_IF_ERROR(CheckFixedMemory());
    RETURN_IF_ERROR(PlaceOtherNeurons());
    DropIdleDeciders();
    cost_.Predict(fleet_.touched, &fleet_.plan);
    return fleet_;
  }

  // Whether GPUs can hold all layers' attention and what they keep of the context.
  bool AllAttentionFits() {
    if (!Prepare().ok()) return false;
    PlaceOutput();
    for (int64_t l = 0; l < n_layers(); ++l) {
      AddAttention(l, Speeds(true, false), /*is_forced=*/true);
    }
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (is_gpu(r) && Free(r) < 0) return false;
    }
    return true;
  }

  // Layers that GPUs can hold as a whole, with nothing else on them.
  int64_t WholeLayersThatFit() {
    if (!Prepare().ok()) return 0;
    int64_t n = 0;
    while (n < n_layers() && AddWholeLayer(n)) ++n;
    return n;
  }

 private:
  int64_t n_layers() const { return shape_.config.n_layers; }
  double n_kv_tokens() const {
    return static_cast<double>(request_.n_kv_tokens > 0 ? request_.n_kv_tokens : request_.n_ctx);
  }
  bool is_gpu(int32_t r) const { return hardware_.ranks[r].kind == RankKind::kGpu; }
  bool has_order() const { return !fleet_.firing.order.empty(); }
  int64_t neuron_unit() const { return has_order() ? 1 : kNeuronUnit; }
  double Free(int32_t r) const {
    return fleet_.ranks[r].limit_bytes - fleet_.ranks[r].total_bytes();
  }
  double NeuronBytes(int64_t l) const {
    const bool slices_predictor =
        fleet_.plan.layers[l].mode == Sparsity::kPredict && fleet_.plan.layers[l].decider < 0;
    return shape_.layers[l].neuron_bytes() +
           (slices_predictor ? shape_.layers[l].fc2_neuron_bytes : 0);
  }

  // What n neurons take on rank r. A run of all of them needs its own planes only.
  double HeldBytes(int64_t l, int32_t r, int64_t n) const {
    const LayerShape& layer = shape_.layers[l];
    const double predictor = NeuronBytes(l) - layer.neuron_bytes();
    const auto count = static_cast<double>(n);
    if (!is_gpu(r)) return count * NeuronBytes(l);
    if (n == 0) return 0;
    const double planes = has_order() ? 1 : count / static_cast<double>(shape_.config.d_ff);
    return count * (layer.gpu_neuron_bytes() + predictor) + planes * layer.gpu_plane_bytes;
  }

  // Shares by bandwidth, of ranks of a kind.
  std::vector<double> Speeds(bool gpus, bool cpus) const {
    std::vector<double> shares(n_ranks_, 0.0);
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (is_gpu(r) ? gpus : cpus) shares[r] = 1 / cost_.UsPerByte(r);
    }
    return shares;
  }
  static bool AllZero(const std::vector<double>& shares) {
    return std::all_of(shares.begin(), shares.end(), [](double share) { return share == 0; });
  }

  absl::Status Prepare() {
    fleet_.plan.profile_hash = fleet_.firing.order;
    for (int32_t r = 0; r < n_ranks_; ++r) {
      const HardwareRank& hardware = hardware_.ranks[r];
      PlannedRank& rank = fleet_.ranks[r];
      rank.limit_bytes = hardware.memory_bytes;
      if (is_gpu(r) && request_.vram_budget_bytes > 0) {
        if (request_.vram_budget_bytes > hardware.memory_bytes) {
          return absl::InvalidArgumentError(fmt::format(
              "--vram-budget {:.2f} GiB is more than the {:.2f} GiB of rank {} ({})",
              request_.vram_budget_bytes / kGib, hardware.memory_bytes / kGib, r, hardware.name));
        }
        rank.limit_bytes = request_.vram_budget_bytes;
      }
      rank.workspace_bytes =
          is_gpu(r) ? request_.gpu_workspace_bytes : request_.cpu_workspace_bytes;
      fleet_.plan.ranks.push_back({.node = hardware.node,
                                   .n_threads = hardware.n_threads,
                                   .address = "",
                                   .kind = hardware.kind,
                                   .memory_bytes = static_cast<int64_t>(rank.limit_bytes),
                                   .device = ""});
    }
    LayerPlan layer;
    layer.kv_heads.resize(n_ranks_);
    layer.neurons.resize(n_ranks_);
    if (fleet_.plan.gpu_ctx > 0) layer.tail_heads.resize(n_ranks_);
    fleet_.plan.layers.assign(n_layers(), layer);
    for (int64_t l = 0; l < n_layers(); ++l) {
      fleet_.plan.layers[l].mode = fleet_.modes[l].mode;
      fleet_.plan.layers[l].sketch_bits = fleet_.modes[l].sketch_bits;
      if (fleet_.modes[l].mode == Sparsity::kPredict) {
        fleet_.plan.layers[l].decider = Decider();
      }
    }
    fleet_.plan.vocab.assign(n_ranks_, {});
    for (int64_t l = 0; l < n_layers(); ++l) AddPredictor(l, 1);
    return absl::OkStatus();
  }

  // The GPU, if there is one; of several none has all of a layer's attention, as deciders must.
  int32_t Decider() const {
    int32_t gpu = -1, n_gpus = 0;
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (!is_gpu(r)) continue;
      gpu = r;
      ++n_gpus;
    }
    return may_decide_ && n_gpus == 1 ? gpu : -1;
  }

  std::vector<Range> SplitHeads(const std::vector<double>& shares) const {
    return SplitByShares(shape_.config.n_kv_heads, shape_.config.kv_heads_per_unit(), shares);
  }
  double KvBytes(int32_t r, const Range& heads, double share_of_context) const {
    const double of_token = is_gpu(r) ? shape_.gpu_kv_token_bytes() : shape_.kv_token_bytes();
    return static_cast<double>(heads.size()) / static_cast<double>(shape_.config.n_kv_heads) *
           of_token * n_kv_tokens() * share_of_context;
  }

  // Adds a layer's attention (shares of ranks), if it fits them all; then or when forced, true.
  // What GPUs do not keep of the context goes to the CPUs.
  bool AddAttention(int64_t l, const std::vector<double>& shares, bool is_forced) {
    const std::vector<Range> heads = SplitHeads(shares);
    const bool on_gpus = shares != Speeds(false, true);
    std::vector<Range> tail = fleet_.plan.layers[l].tail_heads;
    double kept = 1;
    if (!tail.empty() && on_gpus) {
      tail = SplitHeads(Speeds(false, true));
      kept = cost_.ShareOnGpus(fleet_.plan);
    }
    std::vector<PlannedRank> ranks = fleet_.ranks;
    for (int32_t r = 0; r < n_ranks_; ++r) {
      const double share =
          static_cast<double>(heads[r].size()) / static_cast<double>(shape_.config.n_kv_heads);
      ranks[r].attention_bytes += share * shape_.layers[l].attention_bytes;
      ranks[r].kv_bytes += KvBytes(r, heads[r], kept);
      if (!tail.empty()) ranks[r].kv_bytes += KvBytes(r, tail[r], 1 - kept);
    }
    return Take(ranks, is_forced, [&] {
      fleet_.plan.layers[l].kv_heads = heads;
      fleet_.plan.layers[l].tail_heads = tail;
    });
  }

  bool AddNeurons(int64_t l, const std::vector<double>& shares) {
    const std::vector<Range> cuts = SplitByShares(shape_.config.d_ff, neuron_unit(), shares);
    std::vector<PlannedRank> ranks = fleet_.ranks;
    for (int32_t r = 0; r < n_ranks_; ++r) {
      ranks[r].neuron_bytes += HeldBytes(l, r, cuts[r].size());
    }
    return Take(ranks, false, [&] {
      for (int32_t r = 0; r < n_ranks_; ++r) SetNeurons(l, r, cuts[r]);
    });
  }

  template <typename Apply>
  bool Take(const std::vector<PlannedRank>& ranks, bool is_forced, Apply apply) {
    for (const PlannedRank& rank : ranks) {
      if (!is_forced && rank.total_bytes() > rank.limit_bytes) return false;
    }
    fleet_.ranks = ranks;
    apply();
    return true;
  }

  void SetNeurons(int64_t l, int32_t r, Range range) {
    if (range.size() > 0) fleet_.plan.layers[l].neurons[r] = {range};
  }

  bool AddWholeLayer(int64_t l) {
    const std::vector<double> shares = Speeds(true, false);
    const std::vector<PlannedRank> before = fleet_.ranks;
    if (!AllZero(shares) && AddAttention(l, shares, false)) {
      if (AddNeurons(l, shares)) return true;
      fleet_.ranks = before;
      for (Range& heads : fleet_.plan.layers[l].kv_heads) heads = {};
      for (Range& heads : fleet_.plan.layers[l].tail_heads) heads = {};
    }
    return false;
  }

  absl::Status PlaceWholeLayers(int64_t n_whole) {
    for (int64_t l = 0; l < n_whole; ++l) {
      if (AddWholeLayer(l)) continue;
      double limit = 0, used = 0;
      for (int32_t r = 0; r < n_ranks_; ++r) {
        if (!is_gpu(r)) continue;
        limit += fleet_.ranks[r].limit_bytes;
        used += fleet_.ranks[r].total_bytes();
      }
      const double layer = shape_.layers[l].attention_bytes +
                           shape_.gpu_kv_token_bytes() * n_kv_tokens() +
                           NeuronBytes(l) * static_cast<double>(shape_.config.d_ff);
      return absl::ResourceExhaustedError(
          fmt::format("{} whole layers do not fit on the GPU: {} of them and its workspace take "
                      "{:.2f} of {:.2f} "
                      "GiB, one more {:.2f} GiB; lower --gpu-layers to {}, or --ctx-size",
                      n_whole, l, used / kGib, limit / kGib, layer / kGib, l));
    }
    fleet_.n_whole_layers = n_whole;
    return absl::OkStatus();
  }

  // On all ranks by bandwidth; without the GPUs where they have no room.
  void PlaceOutput() {
    for (const bool with_gpus : {true, false}) {
      const bool all_on_gpus = fleet_.n_whole_layers == n_layers();
      const std::vector<double> shares = Speeds(with_gpus, !(with_gpus && all_on_gpus));
      if (AllZero(shares)) continue;
      const std::vector<Range> rows = SplitByShares(shape_.config.n_vocab, kVocabUnit, shares);
      std::vector<PlannedRank> ranks = fleet_.ranks;
      for (int32_t r = 0; r < n_ranks_; ++r) ranks[r].output_bytes = cost_.OutputBytes(rows[r]);
      const bool is_last = !with_gpus || AllZero(Speeds(false, true));
      if (Take(ranks, is_last, [&] { fleet_.plan.vocab = rows; })) return;
    }
  }

  void PlaceAttention() {
    const std::vector<double> gpus = Speeds(true, false), cpus = Speeds(false, true);
    for (int64_t l = fleet_.n_whole_layers; l < n_layers(); ++l) {
      // Without an order of neurons a layer lies on one kind of rank.
      if (has_order() && !AllZero(gpus) && AddAttention(l, gpus, false)) continue;
      AddAttention(l, AllZero(cpus) ? gpus : cpus, true);
      if (!AllZero(cpus)) EachDecides(l);
    }
  }

  // The predictor: whole on the rank that decides; else fc1 on every rank, fc2 with the neurons.
  // sign: 1, or -1 to take it away.
  void AddPredictor(int64_t l, double sign) {
    const LayerPlan& layer = fleet_.plan.layers[l];
    if (layer.mode != Sparsity::kPredict) return;
    const LayerShape& shape = shape_.layers[l];
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (layer.decider >= 0 && layer.decider != r) continue;
      const double fc2 =
          layer.decider < 0 ? 0 : shape.fc2_neuron_bytes * static_cast<double>(shape_.config.d_ff);
      fleet_.ranks[r].predictor_bytes += sign * (shape.fc1_bytes + fc2);
    }
  }
  void EachDecides(int64_t l) {
    AddPredictor(l, -1);
    fleet_.plan.layers[l].decider = -1;
    AddPredictor(l, 1);
  }

  // Where CPUs hold no neurons the predictor is the same size, and nobody else's to choose by.
  void DropIdleDeciders() {
    for (LayerPlan& layer : fleet_.plan.layers) {
      bool has_cpu = false;
      for (int32_t r = 0; r < n_ranks_; ++r) has_cpu |= !is_gpu(r) && !layer.neurons[r].empty();
      if (!has_cpu) layer.decider = -1;
    }
  }

  absl::Status CheckFixedMemory() const {
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (Free(r) >= 0) continue;
      const PlannedRank& rank = fleet_.ranks[r];
      return absl::ResourceExhaustedError(fmt::format(
          "rank {} ({}) has {:.2f} GiB, but attention, KV cache, output, predictor and workspace "
          "take {:.2f} GiB there; lower --ctx-size{} or use a smaller quantization",
          r, hardware_.ranks[r].name, rank.limit_bytes / kGib, rank.total_bytes() / kGib,
          is_gpu(r) ? ", --batch-size, raise --vram-budget" : ", add a node"));
    }
    return absl::OkStatus();
  }

  // Neurons of the layers that are not whole on GPUs, in units of neuron_unit.
  absl::Status PlaceOtherNeurons() {
    if (!hardware_.has_gpu() && !has_order()) {
      if (CutByWork()) return absl::OkStatus();
      if (!fleet_.firing.tables.front().numbers.empty()) {
        return absl::ResourceExhaustedError("a rank's share does not fit in its memory");
      }
    }
    PlacementProblem problem;
    std::vector<int64_t> layers;
    for (int64_t l = fleet_.n_whole_layers; l < n_layers(); ++l) {
      layers.push_back(l);
      problem.layers.push_back(LayerProblem(l));
    }
    for (int32_t r = 0; r < n_ranks_; ++r) {
      problem.us_per_byte.push_back(cost_.UsPerByte(r));
      const bool is_shut = is_gpu(r) && !has_order();  // whole layers only
      double planes = 0;
      for (const int64_t l : layers) planes += is_gpu(r) ? shape_.layers[l].gpu_plane_bytes : 0;
      problem.free_bytes.push_back(is_shut ? 0 : std::max(Free(r) - planes, 0.0));
    }
    const absl::StatusOr<Placement> placement = PlaceNeurons(problem);
    if (!placement.ok()) {
      return absl::ResourceExhaustedError(fmt::format(
          "{} does not fit: {}; add memory, lower --ctx-size or use a smaller quantization",
          shape_.name, std::string(placement.status().message())));
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      int64_t begin = 0;
      for (const int32_t r : placement->layers[i].order) {
        const int64_t end =
            std::min(begin + placement->layers[i].counts[r] * neuron_unit(), shape_.config.d_ff);
        SetNeurons(layers[i], r, {begin, end});
        begin = end;
      }
    }
    if (has_order()) StripeCpus(layers);
    for (const int64_t l : layers) {
      for (int32_t r = 0; r < n_ranks_; ++r) {
        int64_t n_neurons = 0;
        for (const Range& range : fleet_.plan.layers[l].neurons[r]) n_neurons += range.size();
        fleet_.ranks[r].neuron_bytes += HeldBytes(l, r, n_neurons);
      }
    }
    return absl::OkStatus();
  }

  // In the file's order, each rank its share of the work. False where a rank has no memory for it.
  bool CutByWork() {
    const std::vector<double> shares = Speeds(false, true);
    for (int64_t l = 0; l < n_layers(); ++l) {
      std::vector<double> work = fleet_.touched[l];
      const double predictor = NeuronBytes(l) - shape_.layers[l].neuron_bytes();
      for (double& bytes : work) bytes += predictor;
      const std::vector<Range> cuts = SplitByWork(work, kNeuronUnit, shares);
      for (int32_t r = 0; r < n_ranks_; ++r) {
        SetNeurons(l, r, cuts[r]);
        fleet_.ranks[r].neuron_bytes += static_cast<double>(cuts[r].size()) * NeuronBytes(l);
      }
    }
    for (int32_t r = 0; r < n_ranks_; ++r) {
      if (Free(r) >= 0) continue;
      for (PlannedRank& rank : fleet_.ranks) rank.neuron_bytes = 0;
      for (LayerPlan& layer : fleet_.plan.layers) layer.neurons.assign(n_ranks_, {});
      return false;
    }
    return true;
  }

  // The run of neurons that CPU ranks hold together goes to them in stripes, by bandwidth, if their
  // memories allow it in all layers. Their work in a step stays the same together, and is balanced.
  void StripeCpus(const std::vector<int64_t>& layers) {
    const std::vector<double> speeds = Speeds(false, true);
    if (AllZero(speeds)) return;
    std::vector<double> free;
    for (int32_t r = 0; r < n_ranks_; ++r) free.push_back(Free(r));
    std::vector<LayerPlan> striped = fleet_.plan.layers;
    for (const int64_t l : layers) {
      Range run = {shape_.config.d_ff, 0};
      int64_t n_held = 0;
      for (int32_t r = 0; r < n_ranks_; ++r) {
        if (is_gpu(r) || striped[l].neurons[r].empty()) continue;
        const Range& own = striped[l].neurons[r].front();
        run = {std::min(run.begin, own.begin), std::max(run.end, own.end)};
        n_held += own.size();
      }
      if (n_held == 0) continue;
      if (n_held != run.size()) return;  // a GPU's neurons lie between
      std::vector<std::vector<Range>> dealt = DealInStripes(run, speeds);
      for (int32_t r = 0; r < n_ranks_; ++r) {
        if (is_gpu(r)) continue;
        for (const Range& range : dealt[r]) {
          free[r] -= static_cast<double>(range.size()) * NeuronBytes(l);
        }
        if (free[r] < 0) return;
        striped[l].neurons[r] = std::move(dealt[r]);
      }
    }
    fleet_.plan.layers = std::move(striped);
  }

  PlacementLayer LayerProblem(int64_t l) const {
    PlacementLayer layer;
    const double unit = static_cast<double>(neuron_unit());
    layer.held_bytes = NeuronBytes(l) * unit;
    const bool slices_predictor = NeuronBytes(l) > shape_.layers[l].neuron_bytes();
    const double predictor = slices_predictor ? shape_.layers[l].fc2_neuron_bytes : 0;
    const std::vector<double>& touched = fleet_.touched[l];
    for (size_t i = 0; i < touched.size(); i += static_cast<size_t>(neuron_unit())) {
      layer.touched.push_back((touched[i] + predictor) * unit);
    }
    return layer;
  }

  const ModelShape& shape_;
  const Hardware& hardware_;
  const PlacementRequest& request_;
  const CostModel cost_;
  const int32_t n_ranks_;
  const bool may_decide_;
  PlannedFleet fleet_;
};

struct Problem {
  const ModelShape& shape;
  const Hardware& hardware;
  const FiringKnowledge& firing;
  const std::vector<LayerMode>& modes;
  const PlacementRequest& request;
  bool may_decide;  // a GPU for CPUs

  Planner MakePlanner(int64_t gpu_ctx) const {
    return Planner(shape, hardware, firing, modes, request, gpu_ctx, may_decide);
  }
};

void KeepFaster(absl::StatusOr<PlannedFleet> other, absl::StatusOr<PlannedFleet>* best) {
  if (!other.ok()) return;
  if (best->ok() && other->plan.predicted_us >= (*best)->plan.predicted_us) return;
  *best = std::move(other);
}

// n_whole: layers that are whole on GPUs, or kAutoLayers.
absl::StatusOr<PlannedFleet> PlanWithContext(const Problem& problem, int64_t n_whole,
                                             int64_t gpu_ctx) {
  if (n_whole != kAutoLayers) return problem.MakePlanner(gpu_ctx).Make(n_whole);
  // A layer that is whole on a GPU needs no exchange, one that is split uses all bandwidth.
  const int64_t n_fit = problem.MakePlanner(gpu_ctx).WholeLayersThatFit();
  absl::StatusOr<PlannedFleet> best =
      problem.MakePlanner(gpu_ctx).Make(problem.firing.order.empty() ? n_fit : 0);
  // Beside whole layers there must be room for the output, too, which may take one or two of them.
  for (int64_t n = n_fit; n > 0 && n + 3 > n_fit; --n) {
    KeepFaster(problem.MakePlanner(gpu_ctx).Make(n), &best);
  }
  return best;
}

// Whether GPUs lack the room for the attention of some layer, and there are CPUs to take a part.
bool WantsTail(const Hardware& hardware, const PlacementRequest& request,
               const absl::StatusOr<PlannedFleet>& fleet) {
  if (!request.shares_memory) return false;
  const auto is_cpu = [](const HardwareRank& rank) { return rank.kind == RankKind::kCpu; };
  if (!hardware.has_gpu() || std::none_of(hardware.ranks.begin(), hardware.ranks.end(), is_cpu)) {
    return false;
  }
  if (!fleet.ok()) return absl::IsResourceExhausted(fleet.status());
  for (const LayerPlan& layer : fleet->plan.layers) {
    for (size_t r = 0; r < layer.kv_heads.size(); ++r) {
      if (is_cpu(hardware.ranks[r]) && layer.kv_heads[r].size() > 0) return true;
    }
  }
  return false;
}

constexpr int64_t kTile = 256;  // positions, of a GPU's attention

// The most of a session's context that GPUs can keep with all layers' attention, in tiles; half of
// it where they can't even have that.
int64_t TilesOnGpus(const Problem& problem) {
  const int64_t all = SessionContext(problem.request) / kTile;
  int64_t most = 0;
  for (int64_t above = all; above - most > 1;) {
    const int64_t tiles = (most + above) / 2;
    (problem.MakePlanner(tiles * kTile).AllAttentionFits() ? most : above) = tiles;
  }
  return most > 0 ? most : all / 2;
}

// With as much of the context on GPUs as is best.
absl::StatusOr<PlannedFleet> PlanWithTail(const Problem& problem, int64_t n_whole) {
  absl::StatusOr<PlannedFleet> best = PlanWithContext(problem, n_whole, /*gpu_ctx=*/0);
  if (!WantsTail(problem.hardware, problem.request, best)) return best;
  for (int64_t tiles = TilesOnGpus(problem); tiles > 0; tiles /= 2) {
    KeepFaster(PlanWithContext(problem, n_whole, tiles * kTile), &best);
  }
  return best;
}

bool HasDecider(const Plan& plan) {
  return std::any_of(plan.layers.begin(), plan.layers.end(),
                     [](const LayerPlan& layer) { return layer.decider >= 0; });
}

absl::StatusOr<PlannedFleet> PlanWithModes(const ModelShape& shape, const Hardware& hardware,
                                           const FiringKnowledge& firing,
                                           const std::vector<LayerMode>& modes,
                                           const PlacementRequest& request) {
  const bool wants_gpu = request.n_gpu_layers > 0 || request.n_gpu_layers == kAllLayers;
  if (!hardware.has_gpu() && !wants_gpu && !firing.tables.front().numbers.empty()) {
    FiringKnowledge file;
    for (const FiringTable& table : firing.tables) file.tables.push_back(InFileOrder(table));
    absl::StatusOr<PlannedFleet> fleet =
        Planner(shape, hardware, file, modes, request, /*gpu_ctx=*/0, /*may_decide=*/false).Make(0);
    if (fleet.ok()) return fleet;
  }
  int64_t n_whole = std::min(request.n_gpu_layers, shape.config.n_layers);
  if (request.n_gpu_layers == kAllLayers) n_whole = shape.config.n_layers;
  if (n_whole > 0 && !hardware.has_gpu()) {
    return absl::InvalidArgumentError("--gpu-layers is given, but the hardware has no GPU");
  }
  absl::StatusOr<PlannedFleet> best =
      PlanWithTail({shape, hardware, firing, modes, request, request.shares_memory}, n_whole);
  // The predictor takes a decider's memory from hot neurons.
  if (!best.ok() || HasDecider(best->plan)) {
    KeepFaster(PlanWithTail({shape, hardware, firing, modes, request, false}, n_whole), &best);
  }
  return best;
}

}  // namespace

absl::StatusOr<PlannedFleet> PlanHotCold(const ModelShape& shape, const Hardware& hardware,
                                         const FiringKnowledge& firing, const ModeChoices& choices,
                                         const PlacementRequest& request) {
  absl::StatusOr<PlannedFleet> best = PlanWithModes(shape, hardware, firing, choices[0], request);
  for (size_t i = 1; i < choices.size() && hardware.has_gpu(); ++i) {
    KeepFaster(PlanWithModes(shape, hardware, firing, choices[i], request), &best);
  }
  return best;
}

}  // namespace thermocline
