// The public API as a caller sees it, whether the fleet is in this process or behind a
// coordinator's address. Both speak the messages of inference.proto.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"
#include "coordinator/engine/inference.h"
#include "proto/inference.pb.h"

namespace thermocline {

class InferenceClient {
 public:
  virtual ~InferenceClient() = default;

  // As Inference's. is_cancelled may be asked from another thread, and is during a call to a
  // coordinator elsewhere, which may not answer. emit is not called again once it returned false.
  virtual absl::Status Generate(const v1::GenerateRequest& request,
                                const Inference::IsCancelled& is_cancelled,
                                const Inference::Emit& emit) = 0;
  virtual absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request, const Inference::IsCancelled& is_cancelled) = 0;
  virtual absl::StatusOr<v1::ListModelsResponse> ListModels(
      const Inference::IsCancelled& is_cancelled) = 0;
  virtual absl::StatusOr<v1::StatsResponse> Stats(const Inference::IsCancelled& is_cancelled) = 0;
};

std::unique_ptr<InferenceClient> MakeLocalClient(std::unique_ptr<Inference> inference);

// Unavailable when nobody answers at the address in time, InvalidArgument when it needs TLS files
// (ChannelTo).
absl::StatusOr<std::unique_ptr<InferenceClient>> ConnectTo(
    const std::string& address, const TlsFiles& tls, const Inference::IsCancelled& is_cancelled);

}  // namespace thermocline
