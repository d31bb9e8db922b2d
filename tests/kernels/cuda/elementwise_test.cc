// Gated activations and sums on every device: the CPU's bits.
#include <limits>

#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

using Gated = LaunchError (*DeviceOps::*)(DeviceStream*, const float*, const float*, int64_t,
                                          const uint8_t*, int64_t, int64_t, float*,
                                          const DeviceRows&);

class DeviceElementwise : public DeviceTest {
 protected:
  struct Op {
    Gated device;
    void (*cpu)(const float*, const float*, int64_t, float*);
  };
  static std::vector<Op> GatedOps() {
    const Ops& cpu = kernels::ops(Isa::kReference);
    return {{&DeviceOps::relu_mul, cpu.relu_mul},
            {&DeviceOps::silu_mul, cpu.silu_mul},
            {&DeviceOps::relu_relu_mul, ReluRelu}};
  }

  static void ReluRelu(const float* gate, const float* up, int64_t n, float* out) {
    std::vector<float> relu_up(up, up + n);
    for (float& value : relu_up) value = value < 0.0f ? 0.0f : value;
    kernels::ops(Isa::kReference).relu_mul(gate, relu_up.data(), n, out);
  }

  // [n_tokens, stride], NaN where the device writes nothing.
  static std::vector<float> OnCpu(const Op& op, const std::vector<float>& gate,
                                  const std::vector<float>& up, int64_t n_tokens, int64_t n,
                                  int64_t stride) {
    std::vector<float> out(n_tokens * stride, std::nanf(""));
    for (int64_t t = 0; t < n_tokens; ++t) {
      op.cpu(gate.data() + t * stride, up.data() + t * stride, n, out.data() + t * stride);
    }
    return out;
  }

  void ExpectTheCpusBits(const std::vector<float>& gate, const std::vector<float>& up,
                         int64_t n_tokens, int64_t n, int64_t stride) {
    for (const Op& op : GatedOps()) {
      const std::vector<float> expected = OnCpu(op, gate, up, n_tokens, n, stride);
      float* out = device_->Allocate<float>(n_tokens * stride);
      const int64_t n_padded = (n + 31) / 32 * 32;
      const DeviceRows rows = AllocateRows(device_.get(), n_tokens, n_padded + 32);
      device_->Check((ops_.*op.device)(stream_, device_->Upload(gate), device_->Upload(up), stride,
                                       nullptr, n_tokens, n, out, rows));
      ASSERT_TRUE(same_bits(device_->Download(out, n_tokens * stride), expected)) << n;
      std::vector<float> padded(n_tokens * n_padded, 0.0f);
      for (int64_t t = 0; t < n_tokens; ++t) {
        std::copy_n(expected.begin() + t * stride, n, padded.begin() + t * n_padded);
      }
      ExpectRows(device_.get(), rows, QuantizeOnCpu(padded, n_tokens, n_padded, n_padded), n_tokens,
                 n_padded);
    }
  }
};

TEST_P(DeviceElementwise, GatedRowsOfEveryLengthHaveTheCpusBits) {
  for (const int64_t n : lengths()) {
    for (const int64_t n_tokens : {1, 3}) {
      const int64_t stride = (n + 3) / 4 * 4 + 4;
      ExpectTheCpusBits(random_values(n_tokens * stride, 2, 3.0f),
                        random_values(n_tokens * stride, 3), n_tokens, n, stride);
    }
  }
}

TEST_P(DeviceElementwise, SumsOfEveryLengthHaveTheCpusBits) {
  for (const int64_t n : {0, 4, 60, 512, 516, 5000}) {
    const std::vector<float> a = random_values(n, 1), b = random_values(n, 2);
    std::vector<float> expected(n + 4, std::nanf(""));
    kernels::ops(Isa::kReference).add(a.data(), b.data(), n, expected.data());
    auto* out = device_->Allocate<float>(n + 4);
    device_->Check(ops_.add(stream_, device_->Upload(a), device_->Upload(b), n, out));
    EXPECT_TRUE(same_bits(device_->Download(out, n + 4), expected)) << n;
  }
}

TEST_P(DeviceElementwise, GatesOfEverySizeHaveTheCpusBits) {
  std::vector<float> gate = {0.0f, -0.0f};
  for (float value = 0x1p-149f; value < 0x1p127f; value *= 1.31f + 0x1p-20f) {
    if (value < 1e-37f) value = std::max(value * 1.5f, value + 0x1p-149f);
    gate.push_back(value);
    gate.push_back(-value);
  }
  for (float value = -110.0f; value < 110.0f; value += 0.37f) gate.push_back(value);
  for (const float value : {INFINITY, -INFINITY, std::nanf("")}) gate.push_back(value);
  while (gate.size() % 4 != 0) gate.push_back(1.0f);
  const int64_t n = std::ssize(gate);
  ExpectTheCpusBits(gate, random_values(n, 4), 1, n, n);
  ExpectTheCpusBits(std::vector<float>(n, 1.5f), gate, 1, n, n);
}

TEST_P(DeviceElementwise, GatedRowsMayBeWrittenOverTheirInput) {
  const int64_t n = 1030, stride = 1032;
  const std::vector<float> gate = random_values(stride, 5), up = random_values(stride, 6);
  for (const Op& op : GatedOps()) {
    std::vector<float> expected = OnCpu(op, gate, up, 1, n, stride);
    expected.resize(n);
    for (const bool over_gate : {true, false}) {
      float *gate_at = device_->Upload(gate), *up_at = device_->Upload(up);
      float* out = over_gate ? gate_at : up_at;
      device_->Check((ops_.*op.device)(stream_, gate_at, up_at, stride, nullptr, 1, n, out, {}));
      EXPECT_TRUE(same_bits(device_->Download(out, n), expected)) << over_gate;
    }
  }
}

TEST_P(DeviceElementwise, WithoutUpTheActivationAloneIsComputed) {
  const int64_t n = 101, stride = 104;
  const std::vector<float> gate = random_values(2 * stride, 7);
  const std::vector<float> ones(2 * stride, 1.0f);
  for (const Op& op : GatedOps()) {
    float* out = device_->Allocate<float>(2 * stride);
    device_->Check(
        (ops_.*op.device)(stream_, device_->Upload(gate), nullptr, stride, nullptr, 2, n, out, {}));
    EXPECT_TRUE(same_bits(device_->Download(out, 2 * stride), OnCpu(op, gate, ones, 2, n, stride)));
  }
}

TEST_P(DeviceElementwise, OutsideTheMaskIsZeroWhateverGateAndUpAre) {
  const int64_t n = 101, stride = 104;
  std::vector<float> gate = random_values(2 * stride, 8), up = random_values(2 * stride, 9);
  std::vector<uint8_t> mask(2 * n);
  for (int64_t i = 0; i < 2 * n; ++i) mask[i] = i * 7 % 5 < 2;
  for (const Op& op : GatedOps()) {
    std::vector<float> expected = OnCpu(op, gate, up, 2, n, stride);
    std::vector<float> masked_gate = gate;
    for (int64_t i = 0; i < 2 * n; ++i) {
      if (mask[i] != 0) continue;
      expected[i / n * stride + i % n] = 0.0f;
      masked_gate[i / n * stride + i % n] = std::nanf("");
    }
    float* out = device_->Allocate<float>(2 * stride);
    device_->Check((ops_.*op.device)(stream_, device_->Upload(masked_gate), device_->Upload(up),
                                     stride, device_->Upload(mask), 2, n, out, {}));
    EXPECT_TRUE(same_bits(device_->Download(out, 2 * stride), expected));
  }
}

INSTANTIATE_DEVICE_TESTS(DeviceElementwise);

}  // namespace
}  // namespace thermocline::kernels::testing
