// Quantiles of scores, and counts of what passes.
#include "solver/profile/thresholds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "solver/predictor/parallel.h"

namespace thermocline {
namespace {

constexpr int64_t kMostTokens = 4096;  // of which a quantile is as good as of more
constexpr int64_t kTokensAtOnce = 64;  // of a part
constexpr int64_t kMostMagnitudes = int64_t{1} << 22;

// Ways of scoring: sketches of 1, 2, 3 bits, then the gate's magnitude: what a ReLU lets through of
// it, or its amount.
constexpr int kMagnitude = kMaxSketchBits;
constexpr int kKinds = kMaxSketchBits + 1;

// What a model's activation makes of a gate.
struct Rule {
  bool is_relu;

  int first_kind() const { return is_relu ? 0 : kMagnitude; }
  bool Fires(float gate) const { return !is_relu || gate > 0; }
  double Mass(float gate) const {
    return is_relu ? std::max(gate, 0.0f) : std::fabs(gate / (1 + std::exp(-gate)));
  }
};

// Gates and scores of a few tokens, rows `stride` apart.
class PartScores {
 public:
  PartScores(const GateScores& gate, Rule rule, MatrixView samples)
      : gate_(gate),
        rule_(rule),
        inputs_(gate.Prepare(samples)),
        gates_(samples.n_rows * gate.stride()),
        scores_(gates_.size()) {
    gate.Gates(inputs_, gates_.data());
  }

  void Score(int kind) {
    if (kind < kMagnitude) return gate_.Sketch(kind + 1, inputs_, scores_.data());
    std::transform(gates_.begin(), gates_.end(), scores_.begin(), [this](float gate) {
      return rule_.is_relu ? std::max(gate, 0.0f) : std::fabs(gate);
    });
  }
  // visit(gate, score) for every neuron and token, after Score.
  template <typename Visit>
  void ForAll(const Visit& visit) const {
    for (int64_t t = 0; t < inputs_.samples.n_rows; ++t) {
      const int64_t first = t * gate_.stride();
      for (int64_t i = first; i < first + gate_.d_ff(); ++i) visit(gates_[i], scores_[i]);
    }
  }

 private:
  const GateScores& gate_;
  const Rule rule_;
  const GateScores::Inputs inputs_;
  std::vector<float> gates_, scores_;
};

// At most kMostTokens, spread over all.
Matrix Thinned(MatrixView samples) {
  const int64_t n = std::min(samples.n_rows, kMostTokens);
  Matrix thin(n, samples.n_cols);
  for (int64_t i = 0; i < n; ++i) {
    std::copy_n(samples.row(i * samples.n_rows / n), samples.n_cols, thin.row(i));
  }
  return thin;
}

int64_t NumberOfParts(MatrixView samples) {
  return (samples.n_rows + kTokensAtOnce - 1) / kTokensAtOnce;
}

// Calls visit(part's number, its samples).
template <typename Visit>
void ForTokenParts(MatrixView samples, int n_threads, const Visit& visit) {
  ForParts(n_threads, NumberOfParts(samples), [&](int64_t i) {
    visit(i, samples.rows(i * kTokensAtOnce, std::min((i + 1) * kTokensAtOnce, samples.n_rows)));
  });
}

// The largest threshold that at least the share `kept` of the values lies above.
float ThresholdKeeping(std::vector<float>* values, double kept) {
  if (values->empty()) return std::numeric_limits<float>::max();
  const auto n_lost = static_cast<int64_t>(std::floor((1 - kept) * std::ssize(*values)));
  const auto at = values->begin() + std::min<int64_t>(n_lost, std::ssize(*values) - 1);
  std::nth_element(values->begin(), at, values->end());
  return std::nextafter(*at, std::numeric_limits<float>::lowest());
}

void FindThresholds(const GateScores& gate, MatrixView samples, const ThresholdOptions& options,
                    float thresholds[kKinds]) {
  const Rule rule = {IsRelu(options.activation)};
  const int64_t stride = samples.n_rows * gate.d_ff() / kMostMagnitudes + 1;
  std::vector<float> values[kKinds];
  std::mutex mutex;
  ForTokenParts(samples, options.n_threads, [&](int64_t, MatrixView part) {
    PartScores scores(gate, rule, part);
    for (int kind = rule.first_kind(); kind < kKinds; ++kind) {
      std::vector<float> own;
      int64_t i = 0;
      scores.Score(kind);
      scores.ForAll([&](float g, float score) {
        if (!rule.Fires(g)) return;
        if (kind != kMagnitude || i++ % stride == 0) own.push_back(score);
      });
      std::lock_guard<std::mutex> lock(mutex);
      values[kind].insert(values[kind].end(), own.begin(), own.end());
    }
  });
  for (int kind = rule.first_kind(); kind < kKinds; ++kind) {
    const double missed =
        kind + 1 == kMaxSketchBits ? (1 - options.recall) / 2 : 1 - options.recall;
    const double kept = 1 - (kind == kMagnitude ? options.skip_share : missed);
    thresholds[kind] = ThresholdKeeping(&values[kind], kept);
  }
}

// What passes a threshold.
struct Tally {
  int64_t n = 0, n_computed = 0, n_fired = 0, n_kept = 0;
  double mass = 0, mass_kept = 0;

  void Add(const Tally& other) {
    n += other.n;
    n_computed += other.n_computed;
    n_fired += other.n_fired;
    n_kept += other.n_kept;
    mass += other.mass;
    mass_kept += other.mass_kept;
  }
  Selection WithThreshold(float threshold) const {
    const auto share = [](double part, double all) {
      return all > 0 ? static_cast<float>(part / all) : 1.0f;
    };
    return {.threshold = threshold,
            .computed = share(static_cast<double>(n_computed), static_cast<double>(n)),
            .recall = share(static_cast<double>(n_kept), static_cast<double>(n_fired)),
            .mass = share(mass_kept, mass)};
  }
};

Tally Measure(const GateScores& gate, MatrixView samples, const ThresholdOptions& options, int kind,
              float threshold) {
  const Rule rule = {IsRelu(options.activation)};
  std::vector<Tally> tallies(NumberOfParts(samples));  // summed in order: the same at any n_threads
  ForTokenParts(samples, options.n_threads, [&](int64_t i, MatrixView part) {
    PartScores scores(gate, rule, part);
    scores.Score(kind);
    Tally& own = tallies[i];
    scores.ForAll([&](float g, float score) {
      const bool computed = score > threshold;
      ++own.n;
      own.n_computed += computed;
      if (!rule.Fires(g)) return;
      const double mass = rule.Mass(g);
      ++own.n_fired;
      own.n_kept += computed;
      own.mass += mass;
      if (computed) own.mass_kept += mass;
    });
  });
  Tally all;
  for (const Tally& part : tallies) all.Add(part);
  return all;
}

}  // namespace

void SetThresholds(const GateScores& gate, MatrixView calibration, MatrixView held_out,
                   const ThresholdOptions& options, LayerProfile* layer) {
  const Matrix set_on = Thinned(calibration), measured_on = Thinned(held_out);
  float thresholds[kKinds];
  FindThresholds(gate, set_on.view(), options, thresholds);
  for (int kind = Rule{IsRelu(options.activation)}.first_kind(); kind < kKinds; ++kind) {
    Selection& selection = kind == kMagnitude ? layer->magnitude : layer->sketch[kind];
    selection = Measure(gate, measured_on.view(), options, kind, thresholds[kind])
                    .WithThreshold(thresholds[kind]);
  }
}

std::vector<uint32_t> CountAboveMagnitude(const GateScores& gate, MatrixView samples,
                                          const LayerProfile& layer, int n_threads) {
  std::vector<uint32_t> counts(gate.d_ff());
  std::mutex mutex;
  ForTokenParts(samples, n_threads, [&](int64_t, MatrixView part) {
    std::vector<float> gates(part.n_rows * gate.stride());
    gate.Gates(gate.Prepare(part), gates.data());
    std::lock_guard<std::mutex> lock(mutex);
    for (int64_t t = 0; t < part.n_rows; ++t) {
      const float* of_token = gates.data() + t * gate.stride();
      for (int64_t i = 0; i < gate.d_ff(); ++i) {
        counts[i] += std::fabs(of_token[i]) > layer.magnitude.threshold;
      }
    }
  });
  return counts;
}

}  // namespace thermocline
