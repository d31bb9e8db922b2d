// The two clients: one calls an Inference in this process, one a coordinator by gRPC.
#include "coordinator/cli/inference_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/util/status_macros.h"
#include "proto/inference.grpc.pb.h"

namespace thermocline {
namespace {

constexpr std::chrono::seconds kConnectTimeout(5);
constexpr std::chrono::seconds kTokenizeTimeout(60);  // a prompt may be a book
constexpr std::chrono::milliseconds kCancelPoll(20);

class LocalClient final : public InferenceClient {
 public:
  explicit LocalClient(std::unique_ptr<Inference> inference) : inference_(std::move(inference)) {}

  absl::Status Generate(const v1::GenerateRequest& request,
                        const Inference::IsCancelled& is_cancelled,
                        const Inference::Emit& emit) override {
    return inference_->Generate(request, is_cancelled, emit);
  }
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const Inference::IsCancelled&) override {
    return inference_->Tokenize(request);
  }
  absl::StatusOr<v1::ListModelsResponse> ListModels(const Inference::IsCancelled&) override {
    return inference_->ListModels();
  }
  absl::StatusOr<v1::StatsResponse> Stats(const Inference::IsCancelled&) override {
    return inference_->Stats();
  }

 private:
  std::unique_ptr<Inference> inference_;
};

// Cancels a call from a thread of its own: the caller is blocked in it.
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
    bool is_wanted = true;
    while (reader->Read(&message)) {
      if (!is_wanted) continue;  // was under way when the call was cancelled
      is_wanted = emit(message);
      if (!is_wanted) context.TryCancel();
    }
    return FromGrpc(reader->Finish());
  }
  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request, const Inference::IsCancelled& is_cancelled) override {
    return Call<v1::TokenizeResponse>(&v1::Inference::Stub::Tokenize, request, kTokenizeTimeout,
                                      is_cancelled);
  }
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      const Inference::IsCancelled& is_cancelled) override {
    return Call<v1::ListModelsResponse>(&v1::Inference::Stub::ListModels, v1::ListModelsRequest(),
                                        kConnectTimeout, is_cancelled);
  }
  absl::StatusOr<v1::StatsResponse> Stats(const Inference::IsCancelled& is_cancelled) override {
    return Call<v1::StatsResponse>(&v1::Inference::Stub::Stats, v1::StatsRequest(), kConnectTimeout,
                                   is_cancelled);
  }

 private:
  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(grpc::Status (v1::Inference::Stub::*method)(grpc::ClientContext*,
                                                                            const Request&,
                                                                            Response*),
                                const Request& request, std::chrono::seconds timeout,
                                const Inference::IsCancelled& is_cancelled) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    const Canceller canceller(&context, is_cancelled);
    Response response;
    RETURN_IF_ERROR(FromGrpc((stub_.get()->*method)(&context, request, &response)));
    return response;
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace

std::unique_ptr<InferenceClient> MakeLocalClient(std::unique_ptr<Inference> inference) {
  return std::make_unique<LocalClient>(std::move(inference));
}

absl::StatusOr<std::unique_ptr<InferenceClient>> ConnectTo(
    const std::string& address, const TlsFiles& tls, const Inference::IsCancelled& is_cancelled) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ChannelTo(address, tls));
  auto client = std::make_unique<RemoteClient>(channel);
  const absl::Status status = client->ListModels(is_cancelled).status();
  if (absl::IsCancelled(status)) return status;
  if (!status.ok()) {
    return absl::UnavailableError(fmt::format("can't talk to a coordinator at {}: {}", address,
                                              std::string(status.message())));
  }
  return client;
}

}  // namespace thermocline
