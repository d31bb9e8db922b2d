// See exchange_server.h. Every operation is started and then waited for: at most one is under way.
#include "common/rpc/exchange_server.h"

#include "common/rpc/status.h"

namespace thermocline {
namespace {

// Waits for the operation that was just started; false when it failed or the queue is shut down.
bool Await(grpc::CompletionQueue* queue) {
  void* tag;
  bool ok = false;
  return queue->Next(&tag, &ok) && ok;
}

class Call : public FrameStream {
 public:
  explicit Call(grpc::ServerCompletionQueue* queue) : queue_(queue), stream_(&context_) {}

  bool Accept(WorkerServiceBase* service) {
    service->RequestExchange(&context_, &stream_, queue_, queue_, nullptr);
    return Await(queue_);
  }
  bool Read(Frame* frame) override {
    stream_.Read(frame, nullptr);
    return Await(queue_);
  }
  bool Write(const Frame& frame) override {
    stream_.Write(frame, nullptr);
    return Await(queue_);
  }
  void Finish(const grpc::Status& status) {
    stream_.Finish(status, nullptr);
    Await(queue_);
  }

 private:
  grpc::ServerCompletionQueue* queue_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<Frame, Frame> stream_;
};

}  // namespace

ExchangeServer::ExchangeServer(WorkerServiceBase* service, grpc::ServerBuilder* builder)
    : service_(service), queue_(builder->AddCompletionQueue()) {}

ExchangeServer::~ExchangeServer() {
  queue_->Shutdown();
  while (Await(queue_.get())) {
  }
}

bool ExchangeServer::ServeCall(const std::function<absl::Status(FrameStream& stream)>& serve) {
  Call call(queue_.get());
  if (!call.Accept(service_)) return false;
  const absl::Status status = serve(call);
  call.Finish(absl::IsCancelled(status) ? grpc::Status::OK : ToGrpc(status));
  return true;
}

}  // namespace thermocline
