// Times the exchange: round trips and whole exchanges of one token, over shared memory and over
// gRPC on a Unix socket, for 1 to N ranks, each in a process of its own. Not a test; see --help.
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/exchange/shm_exchange.h"
#include "common/exchange/step_driver.h"
#include "common/rpc/channel.h"
#include "common/rpc/exchange_server.h"
#include "common/rpc/proxy.h"
#include "common/rpc/stream_exchange.h"
#include "common/util/check.h"
#include "common/util/flags.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kEpoch = 1;
constexpr int64_t kStallMs = 10'000;
constexpr int32_t kMaxSamples = 1 << 20;
constexpr int kWarmUpShare = 10;  // a tenth of the samples, the first, is not counted
constexpr int32_t kLayers = 50;   // so a step has 100 exchanges
// Of a row: on a busy machine ranks that spin lose whole time slices.
constexpr std::chrono::milliseconds kRowTime(1500);

struct Options {
  int64_t ranks = 2;
  int64_t spin_us = 1000;
  int64_t d_model = 16384;  // 64 KiB of f32
  int64_t samples = 6000;
  std::string format = "md";
};

// What a measuring process leaves to the program, in memory that both map.
struct Samples {
  int32_t n = 0;
  float us[kMaxSamples];

  void Add(Clock::time_point start) {
    THERMOCLINE_CHECK(n < kMaxSamples);
    us[n++] = std::chrono::duration<float, std::micro>(Clock::now() - start).count();
  }
};

struct Row {
  std::string carrier;
  std::string what;
  int64_t ranks;
  int64_t spin_us;  // -1: does not apply
  int64_t bytes;
  int64_t n_samples = 0;
  float p50_us = 0, p99_us = 0;
};

pid_t Fork(const std::function<void()>& body) {
  const pid_t pid = fork();
  THERMOCLINE_CHECK(pid >= 0);
  if (pid != 0) return pid;
  body();
  _exit(0);
}

void Join(pid_t pid) {
  int status = 0;
  THERMOCLINE_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

// Runs `body` in a process of its own, since one that has used gRPC can't fork.
Row Measure(Row row, const std::function<void(Samples* samples)>& body) {
  void* shared =
      mmap(nullptr, sizeof(Samples), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  THERMOCLINE_CHECK(shared != MAP_FAILED);
  Samples* samples = new (shared) Samples();
  Join(Fork([&] { body(samples); }));
  std::vector<float> us(samples->us + samples->n / kWarmUpShare, samples->us + samples->n);
  munmap(shared, sizeof(Samples));
  THERMOCLINE_CHECK(!us.empty());
  std::sort(us.begin(), us.end());
  row.n_samples = static_cast<int64_t>(us.size());
  row.p50_us = us[us.size() / 2];
  row.p99_us = us[us.size() * 99 / 100];
  return row;
}

// --- Shared memory ---------------------------------------------------------------------------

std::unique_ptr<Segment> MakeSegment(int64_t n_ranks, const Options& options, uint32_t spin_us) {
  ExchangeShape shape;
  shape.n_ranks = static_cast<int32_t>(n_ranks);
  shape.max_tokens = 1;
  shape.d_model = static_cast<int32_t>(options.d_model);
  shape.n_layers = kLayers;
  shape.n_vocab = 16;
  shape.max_logit_rows = 1;
  return Segment::Create(shape, kEpoch, spin_us).value();
}

// Two processes advance a counter each, by turns.
void ShmRoundTrips(const Options& options, uint32_t spin_us, Samples* samples) {
  auto segment = MakeSegment(2, options, spin_us);
  Counter &ping = segment->arrived(0), &pong = segment->arrived(1);
  const Counter& abort = segment->header().abort;
  const pid_t other = Fork([&] {
    for (uint32_t i = 1; WaitFor(ping, i, abort, spin_us, -1) == WaitResult::kReached; ++i) {
      Advance(pong);
    }
  });
  const auto end = Clock::now() + kRowTime;
  for (uint32_t i = 1; i <= options.samples && Clock::now() < end; ++i) {
    const auto start = Clock::now();
    Advance(ping);
    WaitFor(pong, i, abort, spin_us, -1);
    samples->Add(start);
  }
  segment->Stop(StopReason::kShutdown);
  Join(other);
}

// Takes part in all steps. `samples`, where not null, gets the time from arriving with a partial to
// having the sum.
void ServeSteps(Exchange& exchange, const ExchangeShape& shape, Samples* samples) {
  std::vector<float> h(shape.d_model);
  while (exchange.NextStep().ok()) {
    for (uint32_t e = 0; e < shape.ExchangesPerStep(); ++e) {
      std::fill_n(exchange.Partial(), shape.d_model, 1.0f);  // a rank writes it in each exchange
      const auto start = Clock::now();
      if (!exchange.Arrive().ok()) return;
      exchange.Collect(h.data(), 0, shape.d_model);
      if (samples != nullptr) samples->Add(start);
    }
    if (!exchange.FinishStep().ok()) return;
  }
}

// The coordinator's part, until there are enough samples or the row has had its time.
void RunSteps(Segment* segment, const Options& options) {
  StepDriver driver(segment);
  std::fill_n(driver.x(), segment->shape().d_model, 0.0f);
  const StepToken token = {.slot = 0, .position = 0, .logit_row = -1};
  const auto end = Clock::now() + kRowTime;
  for (int64_t n = 0; n < options.samples && Clock::now() < end; n += 2 * kLayers) {
    const absl::Status status = driver.Run({&token, 1}, 0, kStallMs);
    if (!status.ok()) {
      fmt::print(stderr, "exchange_bench: {}\n", std::string(status.message()));
      break;
    }
  }
  segment->Stop(StopReason::kShutdown);
}

void ShmExchanges(const Options& options, int64_t n_ranks, uint32_t spin_us, Samples* samples) {
  auto segment = MakeSegment(n_ranks, options, spin_us);
  std::vector<pid_t> pids;
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    pids.push_back(Fork([&] {
      ShmExchange exchange(segment.get(), rank, 0);
      ServeSteps(exchange, segment->shape(), rank == 0 ? samples : nullptr);
    }));
  }
  RunSteps(segment.get(), options);
  for (const pid_t pid : pids) Join(pid);
}

// --- gRPC ------------------------------------------------------------------------------------

// A process that serves one call of Worker.Exchange on its end of a Unix socket.
struct WorkerProcess {
  pid_t pid;
  int fd;  // the other end
};

WorkerProcess StartWorker(const std::function<absl::Status(FrameStream&)>& serve) {
  int fds[2];
  THERMOCLINE_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  const pid_t pid = Fork([&] {
    close(fds[0]);
    WorkerServiceBase service;
    grpc::ServerBuilder builder;
    ConfigureServer(&builder, "");
    builder.RegisterService(&service);
    ExchangeServer exchange(&service, &builder);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    ServeFd(server.get(), fds[1]);
    exchange.ServeCall(serve);
    // At once: the other side no longer looks at its socket, so would not answer a goodbye.
    server->Shutdown(std::chrono::system_clock::now());
  });
  close(fds[1]);
  return {pid, fds[0]};
}

// Frames as in an exchange, filled and checked on both sides.
void GrpcRoundTrips(const Options& options, int64_t n_floats, Samples* samples) {
  const std::vector<float> values(n_floats, 1.0f);
  const FramePlace place = {.epoch = kEpoch, .step = 1};
  const WorkerProcess worker = StartWorker([&](FrameStream& stream) {
    Frame frame;
    while (stream.Read(&frame) && CheckFrame(frame, Frame::REDUCED, place, n_floats).ok()) {
      FillFrame(Frame::PARTIAL, place, values.data(), n_floats, &frame);
      stream.Write(frame);
    }
    return absl::OkStatus();
  });
  const auto stub = worker::v1::Worker::NewStub(ChannelFromFd(worker.fd));
  grpc::ClientContext context;
  const auto stream = stub->Exchange(&context);
  Frame frame;
  const auto end = Clock::now() + kRowTime;
  for (int64_t i = 0; i < options.samples && Clock::now() < end; ++i) {
    const auto start = Clock::now();
    FillFrame(Frame::REDUCED, place, values.data(), n_floats, &frame);
    THERMOCLINE_CHECK(stream->Write(frame) && stream->Read(&frame));
    THERMOCLINE_CHECK(CheckFrame(frame, Frame::PARTIAL, place, n_floats).ok());
    samples->Add(start);
  }
  stream->WritesDone();
  stream->Finish();
  Join(worker.pid);
}

void GrpcExchanges(const Options& options, int64_t n_ranks, Samples* samples) {
  auto segment = MakeSegment(n_ranks, options, /*spin_us=*/0);
  const ExchangeShape shape = segment->shape();
  std::vector<WorkerProcess> workers;
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    workers.push_back(StartWorker([&](FrameStream& stream) {
      StreamExchange exchange(&stream, shape, kEpoch, 0, 0);
      ServeSteps(exchange, shape, rank == 0 ? samples : nullptr);
      return absl::OkStatus();
    }));
  }
  std::vector<std::unique_ptr<RankProxy>> proxies;
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    proxies.push_back(
        std::make_unique<RankProxy>(segment.get(), rank, 0, 0, ChannelFromFd(workers[rank].fd)));
  }
  RunSteps(segment.get(), options);
  proxies.clear();
  for (const WorkerProcess& worker : workers) Join(worker.pid);
}

// --- The table -------------------------------------------------------------------------------

std::vector<Row> MeasureAll(const Options& options) {
  const int64_t n_cpus = std::thread::hardware_concurrency();
  const int64_t vector_bytes = options.d_model * static_cast<int64_t>(sizeof(float));
  // Who spins with more ranks than CPUs takes the CPU from the one that it waits for.
  const auto spins = [&](int64_t n_ranks) {
    return n_ranks <= n_cpus ? std::vector<int64_t>{options.spin_us, 0} : std::vector<int64_t>{0};
  };
  std::vector<Row> rows;
  for (const int64_t spin_us : spins(2)) {
    rows.push_back(Measure({"shm", "round trip", 2, spin_us, 0}, [&](Samples* samples) {
      ShmRoundTrips(options, static_cast<uint32_t>(spin_us), samples);
    }));
  }
  for (const int64_t n_bytes : {int64_t{0}, int64_t{16384}}) {
    rows.push_back(Measure({"grpc", "round trip", 1, -1, n_bytes}, [&](Samples* samples) {
      GrpcRoundTrips(options, n_bytes / static_cast<int64_t>(sizeof(float)), samples);
    }));
  }
  for (int64_t n_ranks = 1; n_ranks <= options.ranks; ++n_ranks) {
    for (const int64_t spin_us : spins(n_ranks)) {
      rows.push_back(
          Measure({"shm", "exchange", n_ranks, spin_us, vector_bytes}, [&](Samples* samples) {
            ShmExchanges(options, n_ranks, static_cast<uint32_t>(spin_us), samples);
          }));
    }
    rows.push_back(Measure({"grpc", "exchange", n_ranks, -1, vector_bytes},
                           [&](Samples* samples) { GrpcExchanges(options, n_ranks, samples); }));
  }
  return rows;
}

void PrintMarkdown(const std::vector<Row>& rows) {
  fmt::print("| carrier | what | ranks | spin us | bytes | p50 us | p99 us |\n");
  fmt::print("| --- | --- | --- | --- | --- | --- | --- |\n");
  for (const Row& row : rows) {
    fmt::print("| {} | {} | {} | {} | {} | {:.2f} | {:.2f} |\n", row.carrier, row.what, row.ranks,
               row.spin_us < 0 ? "-" : std::to_string(row.spin_us), row.bytes, row.p50_us,
               row.p99_us);
  }
}

void PrintJson(const std::vector<Row>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    fmt::print(
        "{} {{\"carrier\": \"{}\", \"what\": \"{}\", \"ranks\": {}, \"spin_us\": {}, \"bytes\": "
        "{}, "
        "\"n_samples\": {}, \"p50_us\": {:.3f}, \"p99_us\": {:.3f}}}",
        i == 0 ? "[\n" : ",\n", row.carrier, row.what, row.ranks,
        row.spin_us < 0 ? "null" : std::to_string(row.spin_us), row.bytes, row.n_samples,
        row.p50_us, row.p99_us);
  }
  fmt::print("\n]\n");
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  using namespace thermocline;
  PrepareGrpc();
  Options options;
  FlagSet flags("exchange_bench",
                "Times the exchange. A round trip: a counter each way between two processes (shm), "
                "a frame each way\n(grpc). An exchange: one token, from a rank's arrival with its "
                "partial to having the sum; every\nrank is a process.");
  flags.Int({"--ranks"}, "N", &options.ranks, 1, 64, "measure exchanges of 1 to N ranks");
  flags.Int({"--spin-us"}, "N", &options.spin_us, 1, 1'000'000,
            "spin time of the rows that spin (with no more ranks than CPUs)");
  flags.Int({"--d-model"}, "N", &options.d_model, 1, 1 << 20, "f32 values of an exchange");
  flags.Int({"--samples"}, "N", &options.samples, 100, kMaxSamples - 100,
            "of each row, as far as 1.5 s go");
  flags.Choice({"-o", "--output"}, {"md", "json"}, &options.format, "what to print");
  const absl::Status status = flags.Parse(argc, argv);
  if (!status.ok()) {
    fmt::print(stderr, "exchange_bench: error: {}\n", std::string(status.message()));
    return 2;
  }
  if (flags.help()) {
    fmt::print("{}", flags.Help());
    return 0;
  }
  const std::vector<Row> rows = MeasureAll(options);
  if (options.format == "md") {
    PrintMarkdown(rows);
  } else {
    PrintJson(rows);
  }
  return 0;
}
