// What a segment is, and what Attach refuses.
#include "common/exchange/segment.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <immintrin.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kEpoch = 7;

ExchangeShape Shape() {
  return {.n_ranks = 3,
          .max_tokens = 5,
          .d_model = 96,
          .n_layers = 2,
          .n_vocab = 101,
          .max_logit_rows = 2};
}

std::unique_ptr<Segment> Make() {
  auto segment = Segment::Create(Shape(), kEpoch, /*spin_us=*/0);
  EXPECT_TRUE(segment.ok()) << segment.status();
  return std::move(segment).value();
}

absl::Status AttachStatus(int fd, const ExchangeShape& shape, uint32_t epoch = kEpoch) {
  return Segment::Attach(fd, shape, epoch).status();
}

TEST(SegmentTest, PartsAreAlignedAndDoNotOverlap) {
  auto segment = Make();
  std::vector<std::pair<uintptr_t, size_t>> parts;  // address, bytes
  const auto add = [&](const void* at, size_t n_bytes, size_t alignment) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % alignment, 0u);
    parts.emplace_back(reinterpret_cast<uintptr_t>(at), n_bytes);
  };
  const size_t vector_bytes = 5 * 96 * 4;
  add(&segment->header(), sizeof(SegmentHeader), 64);
  add(segment->tokens(), 5 * sizeof(StepToken), 64);
  add(segment->x(), vector_bytes, 4096);
  add(segment->reduced(), vector_bytes, 4096);
  add(segment->logits(0), 2 * 101 * 4, 4096);
  for (int rank = 0; rank < 3; ++rank) {
    add(&segment->arrived(rank), sizeof(Counter), 64);
    add(&segment->heartbeat(rank), sizeof(Heartbeat), 64);
    for (int buffer : {0, 1}) {
      add(&segment->partial_header(rank, buffer), sizeof(PartialHeader), 64);
      add(segment->partial(rank, buffer), vector_bytes, 4096);
    }
  }
  std::sort(parts.begin(), parts.end());
  for (size_t i = 1; i < parts.size(); ++i) {
    EXPECT_LE(parts[i - 1].first + parts[i - 1].second, parts[i].first) << "part " << i;
  }
  EXPECT_LE(parts.back().first + parts.back().second, parts.front().first + Shape().SegmentBytes());
}

TEST(SegmentTest, MemoryOfATailLiesBesideTheRestAndIsThereOnlyThen) {
  EXPECT_EQ(Make()->tail().q, nullptr);
  ExchangeShape shape = Shape();
  shape.tail = {.begin = 7, .n_heads = 6, .n_kv_heads = 3, .d_head = 20};
  auto segment = Segment::Create(shape, 1, 0).value();
  const TailMemory tail = segment->tail();
  const int64_t n_tokens = shape.max_tokens;
  EXPECT_GE(tail.q - segment->reduced(), n_tokens * shape.d_model);
  EXPECT_GE(tail.k - tail.q, n_tokens * 6 * 20);
  EXPECT_GE(tail.v - tail.k, n_tokens * 3 * 20);
  EXPECT_GE(tail.state - tail.v, n_tokens * 3 * 20);
  EXPECT_GE(segment->logits(0) - tail.state, n_tokens * 6 * 22);
  shape.tail.n_heads = 0;
  EXPECT_FALSE(shape.Check().ok());
}

TEST(SegmentTest, ChoicesLieBesideTheRestAndAreThereOnlyIfOneChooses) {
  EXPECT_EQ(Make()->choices().bits, nullptr);
  ExchangeShape shape = Shape();
  shape.n_choices = 129;
  auto segment = Segment::Create(shape, 1, 0).value();
  const ChoiceMemory choices = segment->choices();
  EXPECT_EQ(choices.stride, 8);  // of 32, in whole 16 bytes
  const auto* reduced = reinterpret_cast<const uint32_t*>(segment->reduced());
  EXPECT_GE(choices.bits - reduced, int64_t{shape.max_tokens} * shape.d_model);
  const auto* logits = reinterpret_cast<const uint32_t*>(segment->logits(0));
  EXPECT_GE(logits - choices.bits, shape.max_tokens * choices.stride);
  shape.n_choices = -1;
  EXPECT_FALSE(shape.Check().ok());
}

TEST(ExchangeShapeTest, ArrivalsAreCountedPerExchange) {
  const ExchangeShape shape = Shape();  // of several ranks and layers
  for (const int64_t n_tokens : {1, 2}) {
    for (const bool has_tail : {false, true}) {
      std::vector<uint32_t> arrivals(shape.ExchangesPerStep(has_tail) + 1);
      for (uint32_t i = 0; i < shape.ArrivalsPerStep(n_tokens, has_tail); ++i) {
        ++arrivals[shape.ExchangeAfter(i, n_tokens, has_tail)];
      }
      EXPECT_EQ(arrivals.back(), 1u);  // the step's end
      arrivals.pop_back();
      for (size_t e = 0; e < arrivals.size(); ++e) {
        const bool is_meeting = has_tail && e % 4 < 2;
        EXPECT_EQ(arrivals[e], n_tokens > 1 && !is_meeting ? 2u : 1u) << e;
      }
    }
  }
}

TEST(SegmentTest, CountersOfTheHeaderHaveCacheLinesOfTheirOwn) {
  auto segment = Make();
  SegmentHeader& header = segment->header();
  std::vector<uintptr_t> lines;
  for (const void* at :
       {static_cast<const void*>(&header.posted), static_cast<const void*>(&header.finished),
        static_cast<const void*>(&header.abort), static_cast<const void*>(&header.step_number)}) {
    lines.push_back(reinterpret_cast<uintptr_t>(at) / 64);
  }
  std::sort(lines.begin(), lines.end());
  EXPECT_EQ(std::unique(lines.begin(), lines.end()), lines.end());
}

TEST(SegmentTest, IsCloseOnExecAndSealed) {
  auto segment = Make();
  EXPECT_TRUE(fcntl(segment->fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_NE(ftruncate(segment->fd(), 0), 0);
  EXPECT_NE(ftruncate(segment->fd(), 1 << 30), 0);
  EXPECT_NE(fcntl(segment->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(SegmentTest, ShapesThatMakeNoSenseAreRefused) {
  ExchangeShape none = Shape();
  none.d_model = 0;
  EXPECT_EQ(Segment::Create(none, kEpoch, 0).status().code(), absl::StatusCode::kInvalidArgument);
  ExchangeShape huge = Shape();
  huge.n_ranks = huge.max_tokens = huge.d_model = 0x7fffffff;
  const absl::Status status = Segment::Create(huge, kEpoch, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2^40"));
}

TEST(SegmentTest, MoreMemoryThanTheMachineHasIsRefusedWithTheBytes) {
  ExchangeShape large = Shape();
  large.max_tokens = 1 << 20;
  large.d_model = 30'000;  // 0.96e12 bytes
  const absl::Status status = Segment::Create(large, kEpoch, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(std::to_string(large.SegmentBytes()) + " bytes"));
}

TEST(SegmentTest, AttachSeesWhatTheCreatorWrote) {
  auto segment = Make();
  segment->partial(2, 1)[3] = 42;
  auto attached = Segment::Attach(dup(segment->fd()), Shape(), kEpoch);
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ((*attached)->partial(2, 1)[3], 42);
  EXPECT_TRUE(fcntl((*attached)->fd(), F_GETFD) & FD_CLOEXEC);
}

TEST(SegmentTest, AttachRefusesAnotherShape) {
  auto segment = Make();
  ExchangeShape longer = Shape();
  longer.max_tokens = 500;
  EXPECT_THAT(std::string(AttachStatus(dup(segment->fd()), longer).message()),
              HasSubstr("bytes, expected"));
  ExchangeShape deeper = Shape();  // of the same size in bytes
  deeper.n_layers = 3;
  EXPECT_THAT(std::string(AttachStatus(dup(segment->fd()), deeper).message()),
              HasSubstr("2 layers, n_vocab 101, 2 logit rows, expected"));
}

TEST(SegmentTest, AttachRefusesAnotherEpochMagicOrLayout) {
  auto segment = Make();
  EXPECT_THAT(std::string(AttachStatus(dup(segment->fd()), Shape(), 8).message()),
              HasSubstr("epoch 7, expected 8"));
  segment->header().layout_version += 1;
  EXPECT_THAT(std::string(AttachStatus(dup(segment->fd()), Shape()).message()),
              HasSubstr("layout"));
  segment->header().magic += 1;
  EXPECT_THAT(std::string(AttachStatus(dup(segment->fd()), Shape()).message()), HasSubstr("magic"));
}

TEST(SegmentTest, AttachRefusesWhatIsNotSealedAndClosesIt) {
  const int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(Shape().SegmentBytes())), 0);
  const absl::Status status = AttachStatus(fd, Shape());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not sealed"));
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

TEST(SegmentTest, AttachRefusesWhatIsNoDescriptor) {
  EXPECT_THAT(std::string(AttachStatus(-1, Shape()).message()), HasSubstr("no open descriptor"));
}

TEST(SegmentTest, FirstReasonToStopStays) {
  auto segment = Make();
  segment->Stop(StopReason::kShutdown);
  segment->Stop(StopReason::kFailed);
  EXPECT_EQ(segment->StopStatus().code(), absl::StatusCode::kCancelled);
}

// A waiter that has read its counter and the abort word just before Stop, and sleeps just after,
// must find the counter changed: no test hits that moment, so the counters are looked at.
TEST(SegmentTest, StopMovesEveryCounterThatIsWaitedFor) {
  auto segment = Make();
  segment->Stop(StopReason::kFailed);
  EXPECT_NE(segment->header().posted.value, 0u);
  EXPECT_NE(segment->header().finished.value, 0u);
  for (int rank = 0; rank < 3; ++rank) EXPECT_NE(segment->arrived(rank).value, 0u);
}

TEST(SegmentTest, StopWakesWhoeverWaitsOrIsAboutTo) {
  for (int round = 0; round < 500; ++round) {
    auto segment = Make();
    std::vector<std::thread> waiters;
    for (Counter* counter : {&segment->header().posted, &segment->header().finished,
                             &segment->arrived(0), &segment->arrived(2)}) {
      waiters.emplace_back([&segment, counter] {
        EXPECT_EQ(WaitFor(*counter, 1, segment->header().abort, 0, -1), WaitResult::kAborted);
      });
    }
    for (int spin = 0; spin < round; ++spin) _mm_pause();
    segment->Stop(StopReason::kFailed);
    for (std::thread& waiter : waiters) waiter.join();
  }
}

}  // namespace
}  // namespace thermocline
