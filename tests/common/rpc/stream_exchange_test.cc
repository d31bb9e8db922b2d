// The exchange over gRPC, alone and mixed with shared memory: the same bits; and how it fails.
#include "common/rpc/stream_exchange.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/exchange/shm_exchange.h"
#include "common/exchange/step_driver.h"
#include "common/rpc/proxy.h"
#include "gtest/gtest.h"
#include "tests/common/rpc/fake_worker.h"

namespace thermocline {
namespace {

using std::chrono::steady_clock;
using testing::FakeRank;
using testing::FakeWorker;
using ::testing::HasSubstr;
using testing::MakeFakeRank;
using testing::ServeFakeRank;

constexpr uint32_t kEpoch = 11;
constexpr int64_t kTimeoutMs = 20'000;
constexpr int32_t kVocab = 37;

ExchangeShape Shape(int32_t n_ranks) {
  return {.n_ranks = n_ranks,
          .max_tokens = 9,
          .d_model = 40,
          .n_layers = 2,
          .n_vocab = kVocab,
          .max_logit_rows = 3};
}

enum class Carrier { kShm, kSocketPair, kUnixSocket };

// A fleet whose ranks take part by the carriers given.
class Fleet {
 public:
  explicit Fleet(int32_t n_ranks)
      : segment_(Segment::Create(Shape(n_ranks), kEpoch, 0).value()), driver_(segment_.get()) {
    workers_.resize(n_ranks);
    proxies_.resize(n_ranks);
  }
  ~Fleet() { Shutdown(); }

  StepDriver& driver() { return driver_; }
  LogitCandidate* candidates(int32_t rank) { return segment_->candidates(rank); }
  FakeWorker& worker(int32_t rank) { return *workers_[rank]; }
  absl::Status proxy_status(int32_t rank) { return proxies_[rank]->status(); }
  const std::vector<absl::Status>& shm_ends() const { return shm_ends_; }

  void Add(int32_t rank, Carrier carrier) { Add(MakeFakeRank(segment_->shape(), rank), carrier); }

  void Add(const FakeRank& rank, Carrier carrier) {
    if (carrier != Carrier::kShm) return Add(rank, carrier, ServeFakeRank(rank, kEpoch));
    shm_ends_.resize(workers_.size());
    threads_.emplace_back([this, rank] {
      ShmExchange exchange(segment_.get(), rank.rank, rank.vocab_begin);
      shm_ends_[rank.rank] = rank.Run(exchange);
    });
  }

  void Add(const FakeRank& rank, Carrier carrier, FakeWorker::Serve serve) {
    const std::string path = ::testing::TempDir() + "/exchange-" + std::to_string(getpid()) + "-" +
                             std::to_string(rank.rank);
    workers_[rank.rank] = carrier == Carrier::kSocketPair
                              ? FakeWorker::OnSocketPair(std::move(serve))
                              : FakeWorker::OnUnixSocket(path, std::move(serve));
    proxies_[rank.rank] =
        std::make_unique<RankProxy>(segment_.get(), rank.rank, rank.vocab_begin, rank.vocab_end,
                                    workers_[rank.rank]->channel());
  }

  absl::Status Step(int64_t n_tokens, int32_t n_logit_rows, int64_t timeout_ms = kTimeoutMs,
                    bool wants_best_only = false) {
    const uint64_t step = driver_.steps() + 1;
    for (int64_t i = 0; i < n_tokens * segment_->shape().d_model; ++i) {
      driver_.x()[i] = testing::EmbeddingValue(step, i);
    }
    return driver_.Run(testing::MakeTokens(n_tokens, n_logit_rows), n_logit_rows, timeout_ms,
                       wants_best_only);
  }

  void ExpectLogits(int64_t n_tokens, int32_t n_logit_rows) {
    const std::vector<float> h = testing::ExpectedH(segment_->shape(), driver_.steps(), n_tokens);
    for (int32_t row = 0; row < n_logit_rows; ++row) {
      for (int32_t v = 0; v < segment_->shape().n_vocab; ++v) {
        ASSERT_EQ(driver_.logits(row)[v], testing::LogitValue(h, row, v))
            << "row " << row << ", column " << v << " of step " << driver_.steps();
      }
    }
  }

  void ExpectBest(int64_t n_tokens, int32_t n_logit_rows, int32_t n_vocab) {
    const std::vector<float> h = testing::ExpectedH(segment_->shape(), driver_.steps(), n_tokens);
    for (int32_t row = 0; row < n_logit_rows; ++row) {
      std::vector<float> logits;
      for (int32_t v = 0; v < n_vocab; ++v) logits.push_back(testing::LogitValue(h, row, v));
      const LogitCandidate expected = BestOf(logits.data(), n_vocab), best = driver_.best(row);
      ASSERT_EQ(best.token, expected.token) << "row " << row << " of step " << driver_.steps();
      ASSERT_EQ(best.logit, expected.logit);
    }
  }

  void Shutdown() {
    segment_->Stop(StopReason::kShutdown);
    proxies_.clear();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::unique_ptr<Segment> segment_;
  StepDriver driver_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::vector<std::unique_ptr<RankProxy>> proxies_;
  std::vector<std::thread> threads_;
  std::vector<absl::Status> shm_ends_;
};

class CarriersTest : public ::testing::TestWithParam<std::vector<Carrier>> {};

TEST_P(CarriersTest, SumsAreInRankOrderToTheBit) {
  const int32_t n_ranks = static_cast<int32_t>(GetParam().size());
  Fleet fleet(n_ranks);
  for (int32_t rank = 0; rank < n_ranks; ++rank) fleet.Add(rank, GetParam()[rank]);
  for (int step = 0; step < 40; ++step) {
    const int64_t n_tokens = step % 3 == 0 ? 1 + step % 9 : 1;
    const int32_t n_logit_rows = static_cast<int32_t>(std::min<int64_t>(n_tokens, step % 4));
    ASSERT_EQ(fleet.Step(n_tokens, n_logit_rows), absl::OkStatus());
    fleet.ExpectLogits(n_tokens, n_logit_rows);
    if (HasFatalFailure()) return;
  }
  fleet.Shutdown();
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    const absl::Status end =
        GetParam()[rank] == Carrier::kShm ? fleet.shm_ends()[rank] : fleet.worker(rank).End();
    EXPECT_EQ(end.code(), absl::StatusCode::kCancelled) << end;
  }
}

TEST_P(CarriersTest, StepsMayWantOnlyTheBestOfEachRow) {
  const int32_t n_ranks = static_cast<int32_t>(GetParam().size());
  Fleet fleet(n_ranks);
  for (int32_t rank = 0; rank < n_ranks; ++rank) fleet.Add(rank, GetParam()[rank]);
  for (int step = 0; step < 24; ++step) {
    const int32_t n_rows = 1 + step % 3;
    const bool wants_best_only = step % 4 != 3;
    ASSERT_EQ(fleet.Step(4, n_rows, kTimeoutMs, wants_best_only), absl::OkStatus());
    if (wants_best_only) {
      fleet.ExpectBest(4, n_rows, kVocab);
    } else {
      fleet.ExpectLogits(4, n_rows);
    }
    if (HasFatalFailure()) return;
  }
}

// What it left in an earlier step counts no more, and that of the ranks with a slice is taken.
TEST_P(CarriersTest, ARankWithoutASliceLeavesNoCandidate) {
  const int32_t n_ranks = static_cast<int32_t>(GetParam().size());
  Fleet fleet(n_ranks);
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    FakeRank fake = MakeFakeRank(Shape(n_ranks), rank);
    fake.vocab_begin = rank == 0 ? 0 : kVocab;
    fake.vocab_end = kVocab;
    fleet.Add(fake, GetParam()[rank]);
  }
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    for (int row = 0; row < 3; ++row) fleet.candidates(rank)[row] = {1e30f, 5};
  }
  ASSERT_EQ(fleet.Step(4, 3, kTimeoutMs, /*wants_best_only=*/true), absl::OkStatus());
  fleet.ExpectBest(4, 3, kVocab);
}

INSTANTIATE_TEST_SUITE_P(
    All, CarriersTest,
    ::testing::Values(std::vector{Carrier::kSocketPair}, std::vector{Carrier::kUnixSocket},
                      std::vector{Carrier::kSocketPair, Carrier::kSocketPair},
                      std::vector{Carrier::kShm, Carrier::kSocketPair},
                      std::vector{Carrier::kUnixSocket, Carrier::kShm, Carrier::kSocketPair}));

TEST(StreamExchangeTest, AnIdleFleetShutsDownAtOnceAndNothingHasFailed) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  fleet.Add(1, Carrier::kSocketPair);
  ASSERT_EQ(fleet.Step(1, 1), absl::OkStatus());
  EXPECT_EQ(fleet.proxy_status(1), absl::OkStatus());
  const auto start = steady_clock::now();
  fleet.Shutdown();
  EXPECT_LT(steady_clock::now() - start, std::chrono::milliseconds(500));
}

// A stream that hands frames on, changed.
class Tampered : public FrameStream {
 public:
  using Change = std::function<void(Frame&)>;
  Tampered(FrameStream& inner, Change sent, Change received)
      : inner_(inner), sent_(std::move(sent)), received_(std::move(received)) {}
  bool Read(Frame* frame) override {
    const bool ok = inner_.Read(frame);
    if (ok && received_) received_(*frame);
    return ok;
  }
  bool Write(const Frame& frame) override {
    Frame changed = frame;
    if (sent_) sent_(changed);
    return inner_.Write(changed);
  }

 private:
  FrameStream& inner_;
  Change sent_, received_;
};

FakeWorker::Serve ServeTampered(const FakeRank& rank, Tampered::Change sent,
                                Tampered::Change received) {
  return [=](FrameStream& stream) {
    Tampered tampered(stream, sent, received);
    StreamExchange exchange(&tampered, rank.shape, kEpoch, rank.vocab_begin, rank.vocab_end);
    return rank.Run(exchange);
  };
}

struct Damage {
  const char* name;
  Tampered::Change change;
  const char* words;  // of the refusal
};

class DamageTest : public ::testing::TestWithParam<Damage> {};

TEST_P(DamageTest, FromTheWorkerIsRefusedAndTheFleetStops) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  const FakeRank rank = MakeFakeRank(Shape(2), 1);
  fleet.Add(rank, Carrier::kSocketPair, ServeTampered(rank, GetParam().change, nullptr));
  EXPECT_EQ(fleet.Step(1, 1).code(), absl::StatusCode::kUnavailable);
  // The worker was told, and knows why.
  const absl::Status told = fleet.worker(1).End();
  EXPECT_EQ(told.code(), absl::StatusCode::kUnavailable) << told;
  EXPECT_THAT(std::string(told.message()), HasSubstr(GetParam().words));
  EXPECT_EQ(fleet.proxy_status(1).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(fleet.proxy_status(1).message()), HasSubstr("rank 1: "));
  EXPECT_THAT(std::string(fleet.proxy_status(1).message()), HasSubstr(GetParam().words));
}

TEST_P(DamageTest, FromTheCoordinatorIsRefusedAndTheFleetStops) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  const FakeRank rank = MakeFakeRank(Shape(2), 1);
  fleet.Add(rank, Carrier::kSocketPair, ServeTampered(rank, nullptr, GetParam().change));
  EXPECT_EQ(fleet.Step(1, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fleet.worker(1).End().code(), absl::StatusCode::kDataLoss);
  // The worker's words came back with the end of the call.
  EXPECT_EQ(fleet.proxy_status(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(fleet.proxy_status(1).message()), HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    Frames, DamageTest,
    ::testing::Values(
        Damage{"Epoch", [](Frame& f) { f.set_epoch(10); }, "epoch 10"},
        Damage{"Step", [](Frame& f) { f.set_step(f.kind() == Frame::STEP ? 0 : 9); }, "step"},
        Damage{"Kind", [](Frame& f) { f.set_kind(Frame::LOGITS); }, "LOGITS"},
        Damage{"Bit", [](Frame& f) { (*f.mutable_payload())[5] ^= 4; }, "damaged"},
        Damage{"Checksum", [](Frame& f) { f.set_checksum(1); }, "CRC-32C"},
        Damage{"Size", [](Frame& f) { f.mutable_payload()->append(4, 0); }, "damaged"}),
    [](const auto& info) { return info.param.name; });

TEST(StreamExchangeTest, ACandidateOfAnotherRanksSliceIsRefused) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  const FakeRank rank = MakeFakeRank(Shape(2), 1);
  FakeRank liar = rank;
  liar.vocab_begin -= 1;
  liar.vocab_end = rank.vocab_begin;
  fleet.Add(rank, Carrier::kSocketPair, ServeFakeRank(liar, kEpoch));
  EXPECT_EQ(fleet.Step(1, 1, kTimeoutMs, /*wants_best_only=*/true).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(fleet.proxy_status(1).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(fleet.proxy_status(1).message()), HasSubstr("the best of its logits"));
}

TEST(StreamExchangeTest, DeathInTheMiddleOfAStepIsNoticedAtOnce) {
  Fleet fleet(3);
  fleet.Add(0, Carrier::kShm);
  fleet.Add(2, Carrier::kSocketPair);
  FakeRank doomed = MakeFakeRank(Shape(3), 1);
  doomed.before_arrival = [&](uint64_t step, uint32_t exchange) {
    if (step == 2 && exchange == 2) fleet.worker(1).Kill();
  };
  fleet.Add(doomed, Carrier::kSocketPair);
  ASSERT_EQ(fleet.Step(1, 1), absl::OkStatus());
  const auto start = steady_clock::now();
  EXPECT_EQ(fleet.Step(1, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(2));
  EXPECT_EQ(fleet.proxy_status(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(fleet.proxy_status(1).message()),
              HasSubstr("rank 1: the exchange stream to its worker ended"));
  EXPECT_EQ(fleet.proxy_status(2), absl::OkStatus());
  EXPECT_EQ(fleet.worker(1).End().code(), absl::StatusCode::kUnavailable);
  // The other worker was waiting for sums: it is told that there will be none.
  const absl::Status other = fleet.worker(2).End();
  EXPECT_EQ(other.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(other.message()), HasSubstr("given up"));
}

TEST(StreamExchangeTest, AWorkerThatGivesUpSaysWhy) {
  Fleet fleet(1);
  const FakeRank rank = MakeFakeRank(Shape(1), 0);
  fleet.Add(rank, Carrier::kSocketPair, [&](FrameStream& stream) {
    StreamExchange exchange(&stream, rank.shape, kEpoch, 0, rank.vocab_end);
    EXPECT_TRUE(exchange.NextStep().ok());
    return absl::ResourceExhaustedError("no memory for the KV cache");
  });
  EXPECT_EQ(fleet.Step(1, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(fleet.proxy_status(0).message()),
              HasSubstr("no memory for the KV cache"));
}

TEST(StreamExchangeTest, AWorkerThatHangsIsALateRankAndDoesNotHoldUpTheEnd) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  FakeRank hanging = MakeFakeRank(Shape(2), 1);
  std::atomic<bool> hang{true};
  hanging.before_arrival = [&](uint64_t, uint32_t exchange) {
    while (hang && exchange == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  fleet.Add(hanging, Carrier::kSocketPair);
  const absl::Status status = fleet.Step(1, 1, /*timeout_ms=*/200);
  EXPECT_EQ(status.message(), "rank 1 has not arrived in exchange 1 of step 1 for 0.2 s");
  const auto start = steady_clock::now();
  fleet.Shutdown();
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(3));
  hang = false;
}

TEST(StreamExchangeTest, AWorkerThatSaysItIsWorkingIsNotGivenUpAndOneThatStopsSayingItIs) {
  Fleet fleet(2);
  fleet.Add(0, Carrier::kShm);
  FakeRank rank = MakeFakeRank(Shape(2), 1);
  int steps = 0;
  std::atomic<bool> hang{true};
  rank.compute = [&](Exchange& exchange, uint32_t number) {
    if (number != 1) return;
    testing::WorkFor(std::chrono::milliseconds(1500), exchange);
    if (++steps == 1) return;
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  fleet.Add(rank, Carrier::kSocketPair);
  EXPECT_EQ(fleet.Step(1, 1, /*timeout_ms=*/600), absl::OkStatus());
  fleet.ExpectLogits(1, 1);
  EXPECT_EQ(fleet.Step(1, 1, /*timeout_ms=*/600).message(),
            "rank 1 has not arrived in exchange 1 of step 2 for 0.6 s");
  hang = false;
}

TEST(StreamExchangeTest, SignsOfWorkAreFewAndNoneInAQuickStep) {
  Fleet fleet(1);
  const FakeRank rank = MakeFakeRank(Shape(1), 0);
  std::atomic<int> n_signs{0};
  const auto count = [&](Frame& frame) { n_signs += frame.kind() == Frame::WORKING; };
  FakeRank busy = rank;
  busy.compute = [&](Exchange& exchange, uint32_t number) {
    exchange.Working();
    if (number == 3) {
      EXPECT_EQ(n_signs, 0);
      testing::WorkFor(std::chrono::milliseconds(600), exchange);
    }
  };
  fleet.Add(busy, Carrier::kSocketPair, ServeTampered(busy, count, nullptr));
  EXPECT_EQ(fleet.Step(1, 1), absl::OkStatus());
  EXPECT_GE(n_signs, 1);
  EXPECT_LE(n_signs, 3);
}

TEST(StreamExchangeTest, AServerThatIsShutDownTakesNoCall) {
  bool was_called = false;
  auto worker = FakeWorker::OnSocketPair([&](FrameStream&) {
    was_called = true;
    return absl::OkStatus();
  });
  worker.reset();
  EXPECT_FALSE(was_called);
}

}  // namespace
}  // namespace thermocline
