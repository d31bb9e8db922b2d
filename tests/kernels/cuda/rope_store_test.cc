// RoPE and the store into the KV cache: every bit as the CPU's ops leave it, nothing else touched.
#include <cmath>
#include <limits>

#include "tests/kernels/cuda/kv_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

struct Step {
  std::vector<DeviceToken> tokens;
  int64_t n_rot;
  std::vector<float> q, k, v;   // [n_tokens, heads, d_head]
  std::vector<float> cos, sin;  // [n_tokens, n_rot / 2]
};

Step RandomStep(const KvShape& shape, const std::vector<DeviceToken>& tokens, int64_t n_rot) {
  const auto n = static_cast<int64_t>(tokens.size());
  Step step = {tokens,
               n_rot,
               random_values(n * shape.n_heads * shape.d_head, 1),
               random_values(n * shape.n_kv_heads * shape.d_head, 2, 3.0f),
               random_values(n * shape.n_kv_heads * shape.d_head, 3, 0.1f),
               random_values(n * n_rot / 2, 4),
               random_values(n * n_rot / 2, 5)};
  for (size_t i = 0; i < step.cos.size(); ++i) {
    const float angle = step.cos[i];
    step.cos[i] = std::cos(angle);
    step.sin[i] = std::sin(angle);
  }
  return step;
}

class RopeStoreTest : public DeviceTest {
 protected:
  // Compares q and all of the cache with what the reference ops make of the step.
  void ExpectCpuBits(const KvShape& shape, const Step& step) {
    KvPlane k(shape), v(shape);
    const DeviceKv kv = Upload(device_.get(), shape, k, v);
    const auto n_tokens = static_cast<int64_t>(step.tokens.size());
    float* q = device_->Upload(step.q);
    device_->Check(ops_.rope_store(stream_, q, device_->Upload(step.k), device_->Upload(step.v),
                                   device_->Upload(step.cos), device_->Upload(step.sin), step.n_rot,
                                   device_->Upload(step.tokens), n_tokens, shape.n_heads, kv));
    Step expected = step;
    for (int64_t t = 0; t < n_tokens; ++t) {
      const int64_t table = t * step.n_rot / 2;
      const auto rotate = [&](float* x) {
        ops(Isa::kReference)
            .rope_interleaved(x, step.n_rot, step.cos.data() + table, step.sin.data() + table);
        return x;
      };
      for (int32_t head = 0; head < shape.n_heads; ++head) {
        rotate(&expected.q[(t * shape.n_heads + head) * shape.d_head]);
      }
      for (int32_t head = 0; head < shape.n_kv_heads; ++head) {
        const int64_t at = (t * shape.n_kv_heads + head) * shape.d_head;
        if (step.tokens[t].position >= shape.n_ctx) continue;
        k.Store(step.tokens[t], head, rotate(&expected.k[at]));
        v.Store(step.tokens[t], head, &step.v[at]);
      }
    }
    EXPECT_TRUE(same_bits(device_->Download(q, std::ssize(step.q)), expected.q)) << Name(shape);
    ExpectPlane(shape, kv.k, kv.k_scale, k, "k");
    ExpectPlane(shape, kv.v, kv.v_scale, v, "v");
  }

 private:
  void ExpectPlane(const KvShape& shape, const void* values, const uint16_t* scales,
                   const KvPlane& expected, const char* name) {
    const auto actual =
        device_->Download(static_cast<const uint8_t*>(values), std::ssize(expected.values));
    const auto at = std::mismatch(actual.begin(), actual.end(), expected.values.begin()).first;
    EXPECT_EQ(at, actual.end()) << name << ", byte " << at - actual.begin() << ": " << Name(shape);
    if (shape.type == DeviceKvType::kQ8_0) {
      EXPECT_EQ(device_->Download(scales, std::ssize(expected.scales)), expected.scales)
          << name << ": " << Name(shape);
    }
  }
};

constexpr DeviceKvType kTypes[] = {DeviceKvType::kF16, DeviceKvType::kQ8_0};

TEST_P(RopeStoreTest, GivesTheBitsOfTheCpu) {
  const struct {
    int32_t n_heads, n_kv_heads, d_head;
    int64_t n_rot;
  } kShapes[] = {{1, 1, 32, 32},    {3, 1, 32, 20},  {4, 2, 64, 64}, {8, 8, 96, 96},
                 {7, 1, 128, 128},  {2, 2, 128, 64}, {5, 5, 160, 2}, {16, 2, 256, 256},
                 {32, 8, 128, 128}, {2, 1, 64, 0},   {3, 1, 4, 4},   {8, 8, 100, 100},
                 {5, 1, 80, 20},    {2, 2, 72, 72},  {4, 2, 252, 64}};
  for (const DeviceKvType type : kTypes) {
    for (const auto& shape : kShapes) {
      const KvShape kv = {type, 3, 5, shape.n_heads, shape.n_kv_heads, shape.d_head};
      ExpectCpuBits(kv, RandomStep(kv, {{2, 4}}, shape.n_rot));
      ExpectCpuBits(kv, RandomStep(kv, {{0, 0}, {2, 1}, {2, 2}, {1, 4}, {0, 3}}, shape.n_rot));
    }
  }
}

TEST_P(RopeStoreTest, OfTheTailOnlyQIsRotated) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 3, 5, 4, 2, 64};
    ExpectCpuBits(shape, RandomStep(shape, {{1, 4}, {0, 5}, {1, 9}, {0, 3}, {0, 5000}}, 64));
  }
}

TEST_P(RopeStoreTest, AStepWithoutTokensDoesNothing) {
  const KvShape shape = {};
  ExpectCpuBits(shape, RandomStep(shape, {}, 32));
}

TEST_P(RopeStoreTest, ManyTokensHaveTheirOwnPlaces) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 4, 50, 2, 1, 32};
    std::vector<DeviceToken> tokens;
    for (int32_t i = 0; i < 200; ++i) tokens.push_back({i * 7 % 4, i * 7 % 200 / 4});
    ExpectCpuBits(shape, RandomStep(shape, tokens, 32));
  }
}

// Ties of both roundings, f16's subnormals and overflow, infinities, blocks of zeros.
TEST_P(RopeStoreTest, RoundsEdgesAsTheCpuDoes) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 1, 1, 1, 1, 128};
    Step step = RandomStep(shape, {{0, 0}}, 0);
    const float edges[] = {
        127.0f,   0.5f,     1.5f,     -2.5f,    1.0f + 0x1p-11f, 1.0f + 3 * 0x1p-11f,
        65519.0f, 65520.0f, 0x1p-24f, 0x1p-25f, 1.5f * 0x1p-24f, -0x1p-149f,
        -0.0f,    1e30f,    infinity, -infinity};
    std::fill(step.v.begin(), step.v.end(), 0.0f);
    std::copy(std::begin(edges), std::begin(edges) + 6, step.v.begin());
    std::copy(std::begin(edges) + 6, std::begin(edges) + 14, step.v.begin() + 32);
    std::copy(std::begin(edges) + 8, std::begin(edges) + 13, step.v.begin() + 64);
    std::copy(std::begin(edges), std::end(edges), step.k.begin());
    ExpectCpuBits(shape, step);
  }
}

// Halfway between two steps, as near as f32 has it: a product with 1 / scale rounds otherwise.
TEST_P(RopeStoreTest, StepsAreThoseOfADivision) {
  const KvShape shape = {DeviceKvType::kQ8_0, 1, 20, 1, 4, 256};
  Step step = RandomStep(shape, Prompt(0, 0, 20), 0);
  for (size_t i = 0; i < step.v.size(); i += 32) {
    step.v[i] = 1.0f + std::abs(step.v[i]);
    for (size_t j = 1; j < 32; ++j) {
      step.v[i + j] = (static_cast<float>(j * 4) + 0.5f) * (step.v[i] / 127.0f);
    }
  }
  ExpectCpuBits(shape, step);
}

TEST_P(RopeStoreTest, NanIsStoredAsNan) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 1, 1, 1, 1, 64};
    Step step = RandomStep(shape, {{0, 0}}, 0);
    step.v[40] = std::nanf("");
    KvPlane v(shape);
    std::fill(v.values.begin(), v.values.end(), uint8_t{0});
    std::fill(v.scales.begin(), v.scales.end(), uint16_t{0});
    const DeviceKv kv = Upload(device_.get(), shape, v, v);
    device_->Check(ops_.rope_store(stream_, device_->Upload(step.q), device_->Upload(step.k),
                                   device_->Upload(step.v), nullptr, nullptr, 0,
                                   device_->Upload(step.tokens), 1, 1, kv));
    v.values = device_->Download(static_cast<const uint8_t*>(kv.v), std::ssize(v.values));
    if (type == DeviceKvType::kQ8_0) v.scales = device_->Download(kv.v_scale, 2);
    EXPECT_TRUE(std::isnan(v.Value({0, 0}, 0, 40)));
    EXPECT_FALSE(std::isnan(v.Value({0, 0}, 0, 31)));
  }
}

INSTANTIATE_DEVICE_TESTS(RopeStoreTest);

}  // namespace
}  // namespace thermocline::kernels::testing
