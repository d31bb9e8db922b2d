// Whole steps over shared memory, ranks as threads on one mapping.
#include "common/exchange/shm_exchange.h"

#include <gmock/gmock.h>

#include <barrier>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/exchange/step_driver.h"
#include "common/util/status_macros.h"
#include "gtest/gtest.h"
#include "tests/common/exchange/fake_rank.h"

namespace thermocline {
namespace {

using testing::FakeRank;
using ::testing::HasSubstr;

constexpr uint32_t kEpoch = 7;
constexpr int64_t kTimeoutMs = 20'000;

ExchangeShape Shape(int32_t n_ranks) {
  return {.n_ranks = n_ranks,
          .max_tokens = 9,
          .d_model = 40,
          .n_layers = 2,
          .n_vocab = 37,
          .max_logit_rows = 3};
}

// A segment, its driver, and fake ranks as threads.
class Fleet {
 public:
  Fleet(const ExchangeShape& shape, uint32_t spin_us, uint32_t first_count = 0)
      : segment_(Segment::Create(shape, kEpoch, spin_us, first_count).value()),
        driver_(segment_.get()) {
    for (int32_t rank = 0; rank < shape.n_ranks; ++rank) {
      ranks_.push_back(testing::MakeFakeRank(shape, rank));
    }
  }
  ~Fleet() { Stop(StopReason::kShutdown); }

  FakeRank& rank(int32_t r) { return ranks_[r]; }
  Segment& segment() { return *segment_; }
  StepDriver& driver() { return driver_; }
  const std::vector<absl::Status>& ends() const { return ends_; }  // of each rank, after Stop

  void Start() {
    ends_.resize(ranks_.size());
    for (size_t r = 0; r < ranks_.size(); ++r) {
      threads_.emplace_back([this, r] {
        ShmExchange exchange(segment_.get(), ranks_[r].rank, ranks_[r].vocab_begin);
        ends_[r] = ranks_[r].Run(exchange);
      });
    }
  }

  void Stop(StopReason reason) {
    segment_->Stop(reason);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  absl::Status Step(int64_t n_tokens, int32_t n_logit_rows, int64_t timeout_ms = kTimeoutMs) {
    const uint64_t step = driver_.steps() + 1;
    for (int64_t i = 0; i < n_tokens * segment_->shape().d_model; ++i) {
      driver_.x()[i] = testing::EmbeddingValue(step, i);
    }
    return driver_.Run(testing::MakeTokens(n_tokens, n_logit_rows), n_logit_rows, timeout_ms);
  }

  // Whether the logits of the last step are what one thread adding in rank order gets, to the bit.
  void ExpectLogits(int64_t n_tokens, int32_t n_logit_rows) {
    const std::vector<float> h = testing::ExpectedH(segment_->shape(), driver_.steps(), n_tokens);
    for (int32_t row = 0; row < n_logit_rows; ++row) {
      for (int32_t v = 0; v < segment_->shape().n_vocab; ++v) {
        ASSERT_EQ(driver_.logits(row)[v], testing::LogitValue(h, row, v))
            << "row " << row << ", column " << v << " of step " << driver_.steps();
      }
    }
  }

 private:
  std::unique_ptr<Segment> segment_;
  StepDriver driver_;
  std::vector<FakeRank> ranks_;
  std::vector<std::thread> threads_;
  std::vector<absl::Status> ends_;
};

struct Case {
  int32_t n_ranks;
  uint32_t spin_us;
};

class ShmExchangeTest : public ::testing::TestWithParam<Case> {};

TEST_P(ShmExchangeTest, SumsAreInRankOrderToTheBit) {
  Fleet fleet(Shape(GetParam().n_ranks), GetParam().spin_us);
  fleet.Start();
  for (int64_t n_tokens : {1, 1, 9, 1, 2, 3, 1, 9, 9, 1}) {
    const int32_t n_logit_rows = static_cast<int32_t>(std::min<int64_t>(n_tokens, 3));
    ASSERT_EQ(fleet.Step(n_tokens, n_logit_rows), absl::OkStatus());
    fleet.ExpectLogits(n_tokens, n_logit_rows);
  }
  fleet.Stop(StopReason::kShutdown);
  for (const absl::Status& end : fleet.ends()) {
    EXPECT_EQ(end.code(), absl::StatusCode::kCancelled) << end;
  }
}

TEST_P(ShmExchangeTest, ThousandsOfStepsWithRandomDelaysAcrossTheWrap) {
  constexpr int kSteps = 2000;
  Fleet fleet(Shape(GetParam().n_ranks), GetParam().spin_us, /*first_count=*/0u - 5000);
  for (int32_t r = 0; r < GetParam().n_ranks; ++r) {
    auto random = std::make_shared<std::minstd_rand>(r + 1);
    fleet.rank(r).before_arrival = [random](uint64_t, uint32_t) {
      const uint32_t dice = (*random)() % 64;
      if (dice == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (dice < 4) std::this_thread::yield();
    };
  }
  fleet.Start();
  for (int step = 0; step < kSteps; ++step) {
    const int64_t n_tokens = step % 5 == 0 ? 1 + step % 9 : 1;
    ASSERT_EQ(fleet.Step(n_tokens, 1), absl::OkStatus());
    fleet.ExpectLogits(n_tokens, 1);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ShmExchangeTest,
                         ::testing::Values(Case{1, 0}, Case{2, 0}, Case{2, 50}, Case{3, 0},
                                           Case{5, 0}, Case{5, 50}),
                         [](const auto& info) {
                           return "Ranks" + std::to_string(info.param.n_ranks) + "Spin" +
                                  std::to_string(info.param.spin_us);
                         });

TEST(ShmExchange, ThreadsOfARankShareItsSums) {
  constexpr int kThreads = 3;
  const ExchangeShape shape = Shape(2);
  auto segment = Segment::Create(shape, kEpoch, 0).value();
  StepDriver driver(segment.get());
  const int64_t n_tokens = 9, n = n_tokens * shape.d_model;
  for (int64_t i = 0; i < n; ++i) driver.x()[i] = testing::EmbeddingValue(1, i);
  const auto team = [&](int32_t rank) {
    ShmExchange exchange(segment.get(), rank, testing::VocabBegin(shape, rank));
    std::vector<float> h(driver.x(), driver.x() + n);
    std::barrier barrier(kThreads);
    const auto body = [&](int thread) {
      const auto cut = [&](int64_t begin, int64_t end, int t) {
        return begin + (end - begin) * t / kThreads;
      };
      const bool leader = thread == 0;
      const auto expect_ok = [](const auto& result) { EXPECT_TRUE(result.ok()); };
      if (leader) expect_ok(exchange.NextStep());
      barrier.arrive_and_wait();
      const int64_t begin = cut(0, n, thread), end = cut(0, n, thread + 1);
      for (uint32_t e = 0; e < shape.ExchangesPerStep(); ++e) {
        for (int64_t i = begin; i < end; ++i) {
          exchange.Partial()[i] = testing::PartialValue(rank, 1, e, i, h[i]);
        }
        barrier.arrive_and_wait();
        if (leader && testing::IsEmpty(rank, 1, e)) exchange.NoPartial();
        if (leader) expect_ok(exchange.Arrive());
        barrier.arrive_and_wait();
        exchange.AddSlice(h.data(), cut(exchange.slice_begin(), exchange.slice_end(), thread),
                          cut(exchange.slice_begin(), exchange.slice_end(), thread + 1));
        barrier.arrive_and_wait();
        if (leader) expect_ok(exchange.ArriveSlices());
        barrier.arrive_and_wait();
        exchange.Collect(h.data(), begin, end);
        barrier.arrive_and_wait();
      }
      if (leader) expect_ok(exchange.FinishStep());
    };
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(body, thread);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(h, testing::ExpectedH(shape, 1, n_tokens));
  };
  std::thread rank0(team, 0), rank1(team, 1);
  EXPECT_EQ(driver.Run(testing::MakeTokens(n_tokens, 0), 0, kTimeoutMs), absl::OkStatus());
  rank0.join();
  rank1.join();
}

// In each layer rank 0 leaves a question, rank 1 an answer, and both add to h as ever.
TEST(ShmExchange, RanksMeetOverATailBeforeTheirSums) {
  ExchangeShape shape = Shape(2);
  shape.tail = {.begin = 3, .n_heads = 2, .n_kv_heads = 1, .d_head = 4};
  const auto segment = Segment::Create(shape, kEpoch, 0).value();
  StepDriver driver(segment.get());
  const auto serve = [&](int32_t rank) -> absl::Status {
    ShmExchange exchange(segment.get(), rank, testing::VocabBegin(shape, rank));
    for (;;) {
      ASSIGN_OR_RETURN(const Step step, exchange.NextStep());
      const auto number = static_cast<float>(step.number);
      const int64_t n = step.n_tokens() * shape.d_model;
      std::vector<float> h(n);
      for (int32_t i = 0; i < 2 * shape.n_layers; ++i) {
        if (step.has_tail && i % 2 == 0) {
          if (rank == 0) exchange.tail().q[0] = number + static_cast<float>(i);
          RETURN_IF_ERROR(exchange.Meet());
          if (rank == 1) exchange.tail().state[0] = 2 * exchange.tail().q[0];
          RETURN_IF_ERROR(exchange.Meet());
          if (rank == 0) {
            EXPECT_EQ(exchange.tail().state[0], 2 * (number + static_cast<float>(i)));
          }
        }
        std::fill_n(exchange.Partial(), n, 1.0f);
        RETURN_IF_ERROR(exchange.Arrive());
        if (exchange.sliced()) {
          exchange.AddSlice(h.data(), exchange.slice_begin(), exchange.slice_end());
          RETURN_IF_ERROR(exchange.ArriveSlices());
        }
        exchange.Collect(h.data(), 0, n);
      }
      EXPECT_EQ(h, std::vector<float>(n, 4.0f * static_cast<float>(shape.n_layers)));
      RETURN_IF_ERROR(exchange.FinishStep());
    }
  };
  std::thread first([&] { EXPECT_TRUE(absl::IsCancelled(serve(0))); });
  std::thread second([&] { EXPECT_TRUE(absl::IsCancelled(serve(1))); });
  // At positions 0..n-1: before the tail, one by one in it, and across its beginning.
  for (const int32_t n_tokens : {1, 3, 4, 9}) {
    EXPECT_TRUE(driver.Run(testing::MakeTokens(n_tokens, 0), 0, kTimeoutMs).ok());
    const StepToken last = {.slot = 0, .position = n_tokens - 1, .logit_row = -1};
    EXPECT_TRUE(driver.Run({&last, 1}, 0, kTimeoutMs).ok());
  }
  segment->Stop(StopReason::kShutdown);
  first.join();
  second.join();
}

TEST(ShmExchange, SlicesCoverEveryElementOnce) {
  for (int32_t n_ranks : {2, 3, 5}) {
    ExchangeShape shape = Shape(n_ranks);
    shape.d_model = 24;
    auto segment = Segment::Create(shape, kEpoch, 0).value();
    segment->header().n_tokens = 3;
    Advance(segment->header().posted);
    int64_t at = 0;
    for (int32_t rank = 0; rank < n_ranks; ++rank) {
      ShmExchange exchange(segment.get(), rank, 0);
      ASSERT_TRUE(exchange.NextStep().ok());
      EXPECT_TRUE(exchange.sliced());
      EXPECT_EQ(exchange.slice_begin(), at);
      at = exchange.slice_end();
    }
    EXPECT_EQ(at, 3 * 24);
  }
}

TEST(ShmExchange, StallNamesTheRankThatIsLate) {
  Fleet fleet(Shape(3), 0);
  std::atomic<bool> hang{true};
  fleet.rank(1).before_arrival = [&](uint64_t step, uint32_t exchange) {
    while (hang && step == 2 && exchange == 3) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  fleet.Start();
  ASSERT_EQ(fleet.Step(1, 1), absl::OkStatus());
  const absl::Status status = fleet.Step(1, 1, /*timeout_ms=*/200);
  hang = false;
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "rank 1 has not arrived in exchange 3 of step 2 for 0.2 s");
  EXPECT_EQ(fleet.driver().Late(), std::vector<int32_t>{1});
  fleet.Stop(StopReason::kShutdown);
  for (const absl::Status& end : fleet.ends()) {
    EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable) << end;
  }
}

TEST(ShmExchange, StallInASlicedStepNamesTheExchangeToo) {
  Fleet fleet(Shape(2), 0);
  std::atomic<bool> hang{true};
  for (int32_t r : {0, 1}) {
    fleet.rank(r).before_arrival = [&](uint64_t, uint32_t exchange) {
      while (hang && exchange == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    };
  }
  fleet.Start();
  const absl::Status status = fleet.Step(4, 1, /*timeout_ms=*/200);
  hang = false;
  EXPECT_EQ(status.message(), "ranks 0, 1 have not arrived in exchange 2 of step 1 for 0.2 s");
}

TEST(ShmExchange, SlowButSteadyProgressIsNoStall) {
  Fleet fleet(Shape(2), 0);
  fleet.rank(0).before_arrival = [](uint64_t, uint32_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
  };
  fleet.Start();
  EXPECT_EQ(fleet.Step(1, 1, /*timeout_ms=*/400), absl::OkStatus());  // takes 600 ms
}

TEST(ShmExchange, ARankThatSaysItIsWorkingIsNotGivenUp) {
  Fleet fleet(Shape(2), 0);
  fleet.rank(1).compute = [](Exchange& exchange, uint32_t number) {
    if (number == 1) testing::WorkFor(std::chrono::milliseconds(900), exchange);
  };
  fleet.Start();
  EXPECT_EQ(fleet.Step(1, 1, /*timeout_ms=*/300), absl::OkStatus());
}

TEST(ShmExchange, ARankThatHangsIsGivenUpWhileAnotherWorks) {
  Fleet fleet(Shape(3), 0);
  std::atomic<bool> hang{true};
  fleet.rank(0).compute = [&](Exchange& exchange, uint32_t) {
    while (hang) testing::WorkFor(std::chrono::milliseconds(10), exchange);
  };
  fleet.rank(1).compute = [&](Exchange& exchange, uint32_t) {  // works for a while, then hangs
    testing::WorkFor(std::chrono::milliseconds(300), exchange);
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  fleet.Start();
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = fleet.Step(1, 1, /*timeout_ms=*/400);
  const auto taken = std::chrono::steady_clock::now() - start;
  hang = false;
  EXPECT_EQ(status.message(), "rank 1 has not arrived in exchange 0 of step 1 for 0.4 s");
  EXPECT_GE(taken, std::chrono::milliseconds(700));  // what it worked, and the timeout
  EXPECT_LE(taken, std::chrono::milliseconds(1100));
}

TEST(ShmExchange, PartialOfAnotherEpochIsRefusedWithBothValues) {
  auto segment = Segment::Create(Shape(2), kEpoch, 0).value();
  segment->header().n_tokens = 1;
  segment->header().step_number = 5;
  Advance(segment->header().posted);
  segment->partial_header(1, 0) = {.epoch = 6, .exchange = 0, .step_number = 5, .is_empty = 0};
  Advance(segment->arrived(1));
  ShmExchange exchange(segment.get(), 0, 0);
  ASSERT_TRUE(exchange.NextStep().ok());
  const absl::Status status = exchange.Arrive();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1 left a partial of epoch 6"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 is in epoch 7, step 5"));
  EXPECT_EQ(exchange.NextStep().status().code(), absl::StatusCode::kUnavailable);
}

TEST(ShmExchange, PartialOfAnotherStepOrExchangeIsRefused) {
  for (const PartialHeader& stale :
       {PartialHeader{kEpoch, 0, 4, 0}, PartialHeader{kEpoch, 2, 5, 0}}) {
    auto segment = Segment::Create(Shape(2), kEpoch, 0).value();
    segment->header().n_tokens = 1;
    segment->header().step_number = 5;
    Advance(segment->header().posted);
    segment->partial_header(1, 0) = stale;
    Advance(segment->arrived(1));
    ShmExchange exchange(segment.get(), 0, 0);
    ASSERT_TRUE(exchange.NextStep().ok());
    EXPECT_EQ(exchange.Arrive().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(ShmExchange, StepLargerThanTheSegmentIsRefusedByDriverAndRank) {
  auto segment = Segment::Create(Shape(1), kEpoch, 0).value();
  StepDriver driver(segment.get());
  EXPECT_EQ(driver.Run({}, 0, kTimeoutMs).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(driver.Run(testing::MakeTokens(10, 1), 1, kTimeoutMs).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(driver.Run(testing::MakeTokens(4, 4), 4, kTimeoutMs).code(),
            absl::StatusCode::kInvalidArgument);
  segment->header().n_tokens = 10;
  Advance(segment->header().posted);
  ShmExchange exchange(segment.get(), 0, 0);
  EXPECT_EQ(exchange.NextStep().status().code(), absl::StatusCode::kDataLoss);
}

TEST(ShmExchange, DriverOfAStoppedSegmentSaysSo) {
  Fleet fleet(Shape(2), 0);
  fleet.segment().Stop(StopReason::kFailed);
  const absl::Status status = fleet.Step(1, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 1 was given up"));
}

}  // namespace
}  // namespace thermocline
