// See fake_worker.h.
#include "tests/common/rpc/fake_worker.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "common/rpc/channel.h"
#include "common/rpc/stream_exchange.h"

namespace thermocline::testing {

std::unique_ptr<FakeWorker> FakeWorker::OnSocketPair(Serve serve) {
  std::unique_ptr<FakeWorker> worker(new FakeWorker());
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return nullptr;
  worker->kill_fd_ = dup(fds[1]);
  grpc::ServerBuilder builder;
  worker->Start(builder, std::move(serve));
  ServeFd(worker->server_.get(), fds[1]);
  worker->channel_ = ChannelFromFd(fds[0]);
  return worker;
}

std::unique_ptr<FakeWorker> FakeWorker::OnUnixSocket(const std::string& path, Serve serve) {
  std::unique_ptr<FakeWorker> worker(new FakeWorker());
  const std::string address = "unix:" + path;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, ServerCredentialsFor(address, {}).value());
  worker->Start(builder, std::move(serve));
  worker->channel_ = ChannelTo(address, {}).value();
  return worker;
}

void FakeWorker::Start(grpc::ServerBuilder& builder, Serve serve) {
  ConfigureServer(&builder, "");
  builder.RegisterService(&service_);
  exchange_ = std::make_unique<ExchangeServer>(&service_, &builder);
  server_ = builder.BuildAndStart();
  thread_ = std::thread([this, serve = std::move(serve)] {
    exchange_->ServeCall([&](FrameStream& stream) { return end_ = serve(stream); });
  });
}

FakeWorker::~FakeWorker() {
  server_->Shutdown(std::chrono::system_clock::now());
  if (thread_.joinable()) thread_.join();
  if (kill_fd_ >= 0) close(kill_fd_);
}

void FakeWorker::Kill() { shutdown(kill_fd_, SHUT_RDWR); }

absl::Status FakeWorker::End() {
  thread_.join();
  return end_;
}

FakeWorker::Serve ServeFakeRank(const FakeRank& rank, uint32_t epoch) {
  return [rank, epoch](FrameStream& stream) {
    StreamExchange exchange(&stream, rank.shape, epoch, rank.vocab_begin, rank.vocab_end);
    return rank.Run(exchange);
  };
}

}  // namespace thermocline::testing
