// See inference_client.h.
#include "coordinator/cli/inference_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "common/rpc/status.h"
#include "common/util/status_macros.h"
#include "proto/inference.grpc.pb.h"

namespace thermocline {
namespace {

constexpr std::chrono::seconds kConnectTimeout(5);
constexpr std::chrono::milliseconds kCancelPoll(20);
constexpr int kMaxResponseBytes = 64 << 20;

class LocalClient final : public InferenceClient {
 public:
  explicit LocalClient(std::unique_ptr<Inference> inference) : inference_(std::move(inference)) {}

  absl::Status Generate(const v1::GenerateRequest& request,
                        const Inference::IsCancelled& is_cancelled,
                        const Inference::Emit& emit) override {
    return inference_->Generate(request, is_cancelled, emit);
  }
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request) override {
    return inference_->Tokenize(request);
  }
  absl::StatusOr<v1::ListModelsResponse> ListModels() override { return inference_->ListModels(); }

 private:
  std::unique_ptr<Inference> inference_;
};

// Cancels a call from a thread of its own: reading from the stream blocks.
class Canceller {
 public:
  Canceller(grpc::ClientContext* context, const Inference::IsCancelled& is_cancelled)
      : thread_([this, context, &is_cancelled] {
          while (!done_) {
            if (is_cancelled()) {
              context->TryCancel();
              return;
            }
            std::this_thread::sleep_for(kCancelPoll);
          }
        }) {}
  ~Canceller() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

class RemoteClient final : public InferenceClient {
 public:
  explicit RemoteClient(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::Inference::NewStub(channel)) {}

  absl::Status Generate(const v1::GenerateRequest& request,
                        const Inference::IsCancelled& is_cancelled,
                        const Inference::Emit& emit) override {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    const Canceller canceller(&context, is_cancelled);
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      if (!emit(message)) context.TryCancel();
    }
    return FromGrpc(reader->Finish());
  }
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request) override {
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    RETURN_IF_ERROR(FromGrpc(stub_->Tokenize(&context, request, &response)));
    return response;
  }
  absl::StatusOr<v1::ListModelsResponse> ListModels() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kConnectTimeout);
    v1::ListModelsResponse response;
    RETURN_IF_ERROR(FromGrpc(stub_->ListModels(&context, {}, &response)));
    return response;
  }

 private:
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace

std::unique_ptr<InferenceClient> MakeLocalClient(std::unique_ptr<Inference> inference) {
  return std::make_unique<LocalClient>(std::move(inference));
}

absl::StatusOr<std::unique_ptr<InferenceClient>> ConnectTo(const std::string& address,
                                                           const TlsFiles& tls) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> credentials,
                   ChannelCredentials(tls));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxResponseBytes);
  auto client =
      std::make_unique<RemoteClient>(grpc::CreateCustomChannel(address, credentials, arguments));
  if (absl::Status status = client->ListModels().status(); !status.ok()) {
    return absl::UnavailableError(fmt::format("can't talk to a coordinator at {}: {}", address,
                                              std::string(status.message())));
  }
  return client;
}

}  // namespace thermocline
