// Trains the predictor of one layer of a ReLU model from samples of the FFN's inputs: a closed form
// refined by gradient descent, quantized, its threshold calibrated. Knows no fleet and no files,
// and nothing of layers beside its own. Other activations have no predictor (nothing is exactly 0).
//
// score = fc2 . (fc1 . x) + bias, with no ReLU between: the gate is linear in x, and so is its best
// stand-in. The loss of a neuron and a token is -log of a logistic's probability: of not firing
// where the neuron does not fire, and where it does, of firing, times kMissCost * activation / mean
// activation of the layer. So what a miss costs is the activation mass that it loses, and the
// trained score is the logarithm of the mass to expect over the cost of computing.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/tensor_type.h"
#include "common/model/profile.h"
#include "solver/predictor/closed_form.h"
#include "solver/predictor/matrix.h"
#include "solver/predictor/quantize_rows.h"

namespace thermocline {

struct TrainOptions {
  int n_threads = 1;                    // the result does not depend on it
  TensorType type = TensorType::kQ8_0;  // of fc1 and fc2 (PredictorType)
  double mass = 0.99;                   // share of the activation mass that the threshold keeps
  int n_epochs = 3;                     // 0: the closed form alone
  int64_t batch = 1024;                 // tokens of a step
  uint64_t seed = 1;                    // of the order of samples
};

struct TrainedLayer {
  QuantizedMatrix fc1;      // [rank, d_model]
  QuantizedMatrix fc2;      // [d_ff, rank]
  std::vector<float> bias;  // [d_ff]
  Selection selection;      // threshold, and what it does on the held-out samples
  double first_loss = 0;    // on the held-out samples, a neuron and token: of the closed form,
  double loss = 0;          // and of what training kept
};

// The share that is done, 0..1. False stops the training.
using TrainProgress = std::function<bool(double)>;

// The last eighth of the samples, never trained on: for thresholds and ranks.
struct SampleSplit {
  MatrixView training, held_out;
};
SampleSplit SplitSamples(MatrixView samples);

// samples [n_tokens, d_model] are inputs of the FFN after its norm, from windows of the text in
// random order: the last eighth has to stand for all of it. 64k tokens do; fewer learn less. gate
// [d_ff, d_model]; start is ClosedForm's of the training part. Of all epochs the one with the least
// loss on the held-out samples is kept. Needs 2 bytes a training token and neuron beside its
// arguments. Cancelled when `progress` says so; InvalidArgument: fewer than 16 samples, ranks that
// do not fill blocks of the type, numbers that are not finite.
absl::StatusOr<TrainedLayer> TrainLayer(MatrixView samples, MatrixView gate, const LowRank& start,
                                        const TrainOptions& options, const TrainProgress& progress);

}  // namespace thermocline
