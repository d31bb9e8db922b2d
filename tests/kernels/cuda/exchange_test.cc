// The exchange that a device does by itself, with a segment in its own memory: what it leaves
// there, what it adds, and how it ends when others do not come.
#include <gtest/gtest.h>

#include "kernels/ops.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

constexpr uint32_t kEpoch = 77, kArrivals = 0xfffffffeu;  // so that counters wrap
constexpr uint64_t kStep = 9;
constexpr int64_t kStride = 16;

class DeviceExchange : public DeviceTest {
 protected:
  // Ranks whose bit is not set in `empty` have something to add; all but `rank` have arrived.
  void Prepare(int32_t n_ranks, int32_t rank, int64_t n, uint32_t number, uint32_t empty) {
    n_ = n;
    number_ = number;
    h_ = random_values(n, 1);
    const int64_t stride = (n + 1023) / 1024 * 1024;
    std::vector<float> partials(2 * n_ranks * stride, NAN);
    std::vector<uint32_t> arrived(n_ranks * kStride, kArrivals + number + 1);
    std::vector<PartialHeader> headers(2 * n_ranks);
    arrived[rank * kStride] = kArrivals + number;
    for (int32_t r = 0; r < n_ranks; ++r) {
      const bool is_empty = (empty >> r & 1) != 0;
      parts_.push_back(is_empty ? std::vector<float>() : random_values(n, 2 + r));
      if (r == rank) continue;
      const int64_t at = 2 * r + number % 2;
      headers[at] = {kEpoch, number, kStep, is_empty ? 1u : 0u};
      std::copy(parts_[r].begin(), parts_[r].end(), partials.begin() + at * stride);
    }
    memory_.abort = device_->Upload(std::vector<uint32_t>(1, 0));
    memory_.arrived = device_->Upload(arrived);
    memory_.arrived_stride = kStride;
    memory_.headers = device_->Upload(headers);
    memory_.partials = device_->Upload(partials);
    memory_.partial_stride = stride;
    memory_.n_ranks = n_ranks;
    memory_.rank = rank;
    memory_.epoch = kEpoch;
  }
  uint32_t Run() {
    const auto* step = device_->Upload(std::vector<DeviceStep>(1, {kStep, kArrivals}));
    const std::vector<float>& mine = parts_[memory_.rank];
    const float* partial = mine.empty() ? nullptr : device_->Upload(mine);
    device_h_ = device_->Upload(h_);
    auto* state = device_->Upload(std::vector<uint32_t>(1, kExchangeFine));
    device_->Check(
        ops_.exchange(stream_, memory_, step, number_, partial, device_h_, n_, state, times_));
    return device_->Download(state, 1)[0];
  }
  void ExpectSumAndTraces() {
    std::vector<float> expected = h_;
    for (const std::vector<float>& part : parts_) {
      if (part.empty()) continue;
      kernels::ops(Isa::kReference).add(expected.data(), part.data(), n_, expected.data());
    }
    EXPECT_TRUE(same_bits(device_->Download(device_h_, n_), expected));
    const int64_t at = 2 * memory_.rank + number_ % 2;
    const PartialHeader header = device_->Download(memory_.headers + at, 1)[0];
    EXPECT_EQ(header.epoch, kEpoch);
    EXPECT_EQ(header.exchange, number_);
    EXPECT_EQ(header.step_number, kStep);
    const std::vector<float>& mine = parts_[memory_.rank];
    EXPECT_EQ(header.is_empty, mine.empty() ? 1u : 0u);
    if (!mine.empty()) {
      EXPECT_TRUE(
          same_bits(device_->Download(memory_.partials + at * memory_.partial_stride, n_), mine));
    }
    EXPECT_EQ(device_->Download(memory_.arrived + memory_.rank * kStride, 1)[0],
              kArrivals + number_ + 1);
  }

  ExchangeMemory memory_;
  std::vector<std::vector<float>> parts_;
  std::vector<float> h_;
  float* device_h_ = nullptr;
  int64_t* times_ = nullptr;
  int64_t n_ = 0;
  uint32_t number_ = 0;
};

TEST_P(DeviceExchange, AddsAllPartialsInTheOrderOfRanks) {
  struct Case {
    int32_t n_ranks, rank;
    int64_t n;
    uint32_t number, empty;
  };
  for (const Case& c :
       {Case{1, 0, 32, 0, 0}, Case{3, 1, 4096, 1, 0}, Case{3, 0, 100, 2, 0b010},
        Case{2, 1, 5000, 63, 0b10}, Case{4, 3, 4, 5, 0b0111}, Case{2, 0, 64, 0, 3}}) {
    SCOPED_TRACE(::testing::Message() << c.n_ranks << " ranks, " << c.n);
    parts_.clear();
    Prepare(c.n_ranks, c.rank, c.n, c.number, c.empty);
    EXPECT_EQ(Run(), kExchangeFine);
    ExpectSumAndTraces();
  }
}

TEST_P(DeviceExchange, SaysWhenItHadArrivedAndWhenAllHad) {
  Prepare(3, 1, 64, 1, 0);
  auto* before = device_->Upload(std::vector<int64_t>(1, 0));
  device_->Check(ops_.stamp(stream_, before));
  times_ = device_->Upload(std::vector<int64_t>(2, 0));
  EXPECT_EQ(Run(), kExchangeFine);
  ExpectSumAndTraces();
  const std::vector<int64_t> times = device_->Download(times_, 2);
  EXPECT_GE(times[0], device_->Download(before, 1)[0]);
  EXPECT_GE(times[1], times[0]);
}

TEST_P(DeviceExchange, AStoppedFleetIsNotWaitedFor) {
  Prepare(2, 0, 256, 3, 0);
  memory_.abort = device_->Upload(std::vector<uint32_t>(1, 2));
  std::vector<uint32_t> arrived(2 * kStride, kArrivals + 3);  // rank 1 has not come
  memory_.arrived = device_->Upload(arrived);
  EXPECT_EQ(Run(), kExchangeAborted);
}

TEST_P(DeviceExchange, APartialOfAnotherExchangeIsNoticed) {
  for (int field = 0; field < 3; ++field) {
    parts_.clear();
    Prepare(2, 1, 64, 4, 0);
    std::vector<PartialHeader> headers = device_->Download(memory_.headers, 4);
    if (field == 0) ++headers[0].epoch;
    if (field == 1) headers[0].exchange -= 2;
    if (field == 2) --headers[0].step_number;
    memory_.headers = device_->Upload(headers);
    EXPECT_EQ(Run(), kExchangeMismatched) << field;
  }
}

INSTANTIATE_DEVICE_TESTS(DeviceExchange);

}  // namespace
}  // namespace thermocline::kernels::testing
