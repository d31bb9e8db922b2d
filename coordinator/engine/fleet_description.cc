// What clients are told of the fleet's model; the fleet itself is fleet.cc.
#include "coordinator/engine/fleet.h"

namespace thermocline {

v1::Model Fleet::Describe() const {
  const ModelConfig& config = model_->config();
  v1::Model model;
  model.set_id(model_->id());
  model.set_architecture(config.architecture);
  model.set_hash(model_->file().ContentHash());
  model.set_n_vocab(config.n_vocab);
  model.set_n_ctx(n_ctx_);
  model.set_n_ctx_train(config.n_ctx_train);
  model.set_d_model(config.d_model);
  model.set_file_bytes(static_cast<int64_t>(model_->file().file_bytes()));
  model.set_n_workers(plan_.n_ranks());
  return model;
}

}  // namespace thermocline
