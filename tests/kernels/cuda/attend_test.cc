// Attention over the KV cache: against f64 within a derived bound, and that neither a token's
// neighbours in a step, nor the number of tokens, nor the rest of the cache shows in its bits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/cuda/kv_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

constexpr DeviceKvType kTypes[] = {DeviceKvType::kF16, DeviceKvType::kQ8_0};

// A cache full of random values, and the queries of some tokens.
struct Problem {
  Problem(const KvShape& kv_shape, std::vector<DeviceToken> step_tokens, int64_t step_window)
      : shape(kv_shape),
        tokens(std::move(step_tokens)),
        window(step_window),
        scale(1.0f / std::sqrt(static_cast<float>(shape.d_head))),
        q(random_values(std::ssize(tokens) * shape.n_heads * shape.d_head, 21)),
        k(shape),
        v(shape) {}

  // Values for all positions up to each token's; the others stay NaN.
  void Fill() {
    std::vector<int32_t> n_positions(static_cast<size_t>(shape.n_slots), 0);
    for (const DeviceToken& token : tokens) {
      n_positions[token.slot] = std::max(n_positions[token.slot], token.position + 1);
    }
    for (int32_t slot = 0; slot < shape.n_slots; ++slot) {
      for (int32_t position = 0; position < n_positions[slot]; ++position) {
        const int64_t n = int64_t{shape.n_kv_heads} * shape.d_head;
        const auto seed = static_cast<uint32_t>(slot * 100000 + position * 2);
        const std::vector<float> key = random_values(n, seed), value = random_values(n, seed + 1);
        for (int32_t head = 0; head < shape.n_kv_heads; ++head) {
          k.Store({slot, position}, head, &key[head * shape.d_head]);
          v.Store({slot, position}, head, &value[head * shape.d_head]);
        }
      }
    }
  }
  // The step of tokens [begin, end) alone, with the same cache.
  Problem Part(size_t begin, size_t end) const {
    const auto size = static_cast<size_t>(shape.n_heads) * shape.d_head;
    Problem part = *this;
    part.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    part.q.assign(q.begin() + begin * size, q.begin() + end * size);
    return part;
  }

  KvShape shape;
  std::vector<DeviceToken> tokens;
  int64_t window;
  float scale;
  std::vector<float> q;  // [n_tokens, n_heads, d_head]
  KvPlane k, v;
};

// Softmax(q K^T scale) V of one row in f64, and how far f32 may be from it (device_ops.h): a score
// has d_head + 1 roundings of at most `magnitude`. score - max and two such differences for each
// tile are rounded at up to 2 * magnitude, the exps of them by 2 each. Sums: 32 positions and 8
// chunks; two operations a merge. Above and below the fraction alike, and one division.
void Judge(const Problem& problem, size_t t, int32_t head, double* expected, double* tolerance) {
  const KvShape& shape = problem.shape;
  const DeviceToken token = problem.tokens[t];
  const int32_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
  const int64_t end = token.position + 1;
  const int64_t begin = problem.window == 0 ? 0 : std::max<int64_t>(0, end - problem.window);
  const float* q = &problem.q[(t * shape.n_heads + head) * shape.d_head];
  std::vector<double> score;
  double magnitude = 0;
  for (auto position = static_cast<int32_t>(begin); position < end; ++position) {
    double sum = 0, terms = 0;
    for (int64_t d = 0; d < shape.d_head; ++d) {
      const double term =
          q[d] * problem.k.Value({token.slot, position}, kv_head, d) * problem.scale;
      sum += term;
      terms += std::abs(term);
    }
    score.push_back(sum);
    magnitude = std::max(magnitude, terms);
  }
  const auto n_tiles = static_cast<double>((end - 1) / kAttendTile - begin / kAttendTile + 1);
  const double roundings =
      2 * (shape.d_head + 1 + 2 * (n_tiles + 1)) * magnitude + 8 * n_tiles + 90;
  const double max = *std::max_element(score.begin(), score.end());
  double sum = 0;
  std::fill_n(expected, shape.d_head, 0.0);
  std::fill_n(tolerance, shape.d_head, 0.0);
  for (auto position = static_cast<int32_t>(begin); position < end; ++position) {
    const double p = std::exp(score[position - begin] - max);
    sum += p;
    for (int64_t d = 0; d < shape.d_head; ++d) {
      const double term = p * problem.v.Value({token.slot, position}, kv_head, d);
      expected[d] += term;
      tolerance[d] += std::abs(term) * roundings * kRounding;
    }
  }
  for (int64_t d = 0; d < shape.d_head; ++d) {
    expected[d] /= sum;
    tolerance[d] = tolerance[d] / sum + 0x1p-149;
  }
}

class AttendTest : public DeviceTest {
 protected:
  // [n_tokens, n_heads, d_head]
  std::vector<float> Attend(const Problem& problem) {
    return Attend(problem, Upload(device_.get(), problem.shape, problem.k, problem.v));
  }
  std::vector<float> Attend(const Problem& problem, const DeviceKv& kv) {
    const KvShape& shape = problem.shape;
    const auto n_tokens = static_cast<int64_t>(problem.tokens.size());
    int64_t max_position = 0;
    for (const DeviceToken& token : problem.tokens) {
      max_position = std::max<int64_t>(max_position, token.position);
    }
    float* out = device_->Allocate<float>(n_tokens * shape.n_heads * shape.d_head);
    void* workspace = device_->Allocate<uint8_t>(
        attend_bytes(n_tokens, shape.n_heads, shape.d_head, max_position));
    device_->Check(ops_.attend(stream_, device_->Upload(problem.q), device_->Upload(problem.tokens),
                               n_tokens, shape.n_heads, kv, problem.scale, problem.window,
                               max_position, out, workspace));
    return device_->Download(out, n_tokens * shape.n_heads * shape.d_head);
  }
  void ExpectCloseToF64(const Problem& problem) {
    const std::vector<float> out = Attend(problem);
    std::vector<double> expected(out.size()), tolerance(out.size());
    for (size_t t = 0; t < problem.tokens.size(); ++t) {
      for (int32_t head = 0; head < problem.shape.n_heads; ++head) {
        const size_t at = (t * problem.shape.n_heads + head) * problem.shape.d_head;
        Judge(problem, t, head, &expected[at], &tolerance[at]);
      }
    }
    EXPECT_TRUE(within(out, expected, tolerance))
        << Name(problem.shape) << ", " << problem.tokens.size() << " tokens, window "
        << problem.window;
  }
  // Each of the tokens has in the step the bits that it has alone.
  void ExpectBitsOfTokensAlone(const Problem& problem, size_t every = 1) {
    const DeviceKv kv = Upload(device_.get(), problem.shape, problem.k, problem.v);
    const std::vector<float> together = Attend(problem, kv);
    const auto size = static_cast<size_t>(problem.shape.n_heads) * problem.shape.d_head;
    for (size_t t = 0; t < problem.tokens.size(); t += every) {
      const std::vector<float> of_token(together.begin() + t * size,
                                        together.begin() + (t + 1) * size);
      EXPECT_TRUE(same_bits(of_token, Attend(problem.Part(t, t + 1), kv)))
          << Name(problem.shape) << ", token " << t << " of " << problem.tokens.size()
          << ", window " << problem.window;
    }
  }
};

TEST_P(AttendTest, IsCloseToF64) {
  const struct {
    int32_t n_heads, n_kv_heads, d_head;
  } kShapes[] = {{1, 1, 32},  {2, 2, 64},  {6, 2, 96},  {4, 4, 128}, {7, 1, 128},
                 {16, 1, 64}, {24, 1, 32}, {8, 4, 160}, {9, 1, 256}, {40, 2, 128}};
  for (const DeviceKvType type : kTypes) {
    for (const auto& heads : kShapes) {
      const KvShape shape = {type, 2, 600, heads.n_heads, heads.n_kv_heads, heads.d_head};
      for (const int64_t window : {0, 40}) {
        Problem problem(shape, {{1, 0}, {0, 30}, {0, 255}, {1, 256}, {0, 599}}, window);
        problem.Fill();
        ExpectCloseToF64(problem);
      }
    }
  }
}

TEST_P(AttendTest, EveryLengthOfContextIsCloseToF64) {
  const KvShape shape = {DeviceKvType::kF16, 1, 1030, 2, 1, 32};
  Problem problem(shape, Prompt(0, 0, 1030), 0);
  problem.Fill();
  std::vector<DeviceToken> some;
  for (const int32_t end : {1,   2,   31,  32,  33,  63,  64,  65,  224,  225,  256, 257,
                            288, 289, 511, 512, 513, 767, 768, 769, 1024, 1025, 1030}) {
    some.push_back({0, end - 1});
  }
  problem.tokens = some;
  problem.q = random_values(std::ssize(some) * 2 * 32, 22);
  ExpectCloseToF64(problem);
  for (const int64_t window : {1, 2, 31, 32, 33, 256, 257, 258, 300, 1029, 1030, 5000}) {
    problem.window = window;
    ExpectCloseToF64(problem);
  }
}

// More tiles than a warp has lanes, which merge_tiles takes 32 at a time; the first of the second
// 32 has the largest score.
TEST_P(AttendTest, LongContextIsCloseToF64) {
  const KvShape shape = {DeviceKvType::kQ8_0, 1, 20000, 1, 1, 32};
  Problem problem(shape, {{0, 19999}, {0, 8191}, {0, 8192}}, 0);
  problem.Fill();
  problem.k.Store({0, 32 * kAttendTile + 9}, 0, problem.q.data());
  ExpectCloseToF64(problem);
}

TEST_P(AttendTest, TokensOfManySlotsHaveTheBitsTheyHaveAlone) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 4, 530, 6, 2, 64};
    std::vector<DeviceToken> tokens = Prompt(2, 250, 262);
    for (const DeviceToken& token : {DeviceToken{0, 529}, {1, 3}, {3, 256}, {0, 100}}) {
      tokens.push_back(token);
    }
    for (const int64_t window : {0, 9, 270}) {
      Problem problem(shape, tokens, window);
      problem.Fill();
      ExpectBitsOfTokensAlone(problem);
    }
  }
}

// So many rows that no tiles are kept in memory.
TEST_P(AttendTest, WithoutPartialsTheBitsAreThoseWithThem) {
  std::vector<DeviceToken> tokens = Prompt(1, 540, 600);
  for (const DeviceToken& token : Prompt(0, 250, 260)) tokens.push_back(token);
  ASSERT_GT(tokens.size() * 64, 4096u);
  for (const DeviceKvType type : kTypes) {
    const int64_t window = type == DeviceKvType::kF16 ? 0 : 300;
    Problem problem({type, 2, 600, 64, 4, 32}, tokens, window);
    problem.Fill();
    ExpectBitsOfTokensAlone(problem, 9);
  }
}

// So many tokens that four, or two of three heads each, share a block: their rows end at different
// positions, begin there under a window, and at times belong to several slots.
TEST_P(AttendTest, TokensThatShareABlockHaveTheBitsTheyHaveAlone) {
  std::vector<DeviceToken> tokens;
  for (const int32_t slot : {3, 0, 4}) {
    const std::vector<DeviceToken> prompt = Prompt(slot, 240, slot == 0 ? 270 : 290);
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
  }
  for (int32_t i = 0; i < 20; ++i) tokens.push_back({1 + i % 2, 300 + i});
  for (const int32_t heads_of_kv : {1, 3}) {
    const int32_t n_kv_heads = heads_of_kv == 1 ? 32 : 16;
    const KvShape shape = {DeviceKvType::kF16, 5, 420, n_kv_heads * heads_of_kv, n_kv_heads, 32};
    Problem problem(shape, tokens, heads_of_kv == 1 ? 0 : 33);
    problem.Fill();
    ExpectBitsOfTokensAlone(problem, 7);
  }
}

TEST_P(AttendTest, SixteenTokensOfABlockAreCloseToF64) {
  const KvShape shape = {DeviceKvType::kQ8_0, 1, 512, 32, 32, 32};
  Problem problem(shape, Prompt(0, 0, 512), 12);
  problem.Fill();
  ExpectCloseToF64(problem);
}

// Partials of several tokens of one block.
TEST_P(AttendTest, TokensThatShareABlockMayHaveManyTiles) {
  const KvShape shape = {DeviceKvType::kF16, 1, 2048, 8, 8, 32};
  Problem problem(shape, Prompt(0, 1990, 2048), 0);
  problem.Fill();
  ExpectBitsOfTokensAlone(problem, 11);
}

TEST_P(AttendTest, TwiceTheSameGivesTheSameBits) {
  const KvShape shape = {DeviceKvType::kF16, 1, 700, 8, 2, 128};
  Problem problem(shape, Prompt(0, 690, 700), 0);
  problem.Fill();
  EXPECT_TRUE(same_bits(Attend(problem), Attend(problem)));
}

TEST_P(AttendTest, OnePositionGivesItsValue) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 1, 300, 1, 1, 128};
    for (const DeviceToken& token : {DeviceToken{0, 0}, {0, 299}}) {
      Problem problem(shape, {token}, 1);
      problem.Fill();
      std::vector<float> value(128);
      for (int64_t d = 0; d < 128; ++d) {
        value[d] = static_cast<float>(problem.v.Value(token, 0, d));
      }
      EXPECT_TRUE(same_bits(Attend(problem), value));
    }
  }
}

// A token of a prompt is stored beside those before it when they attend.
TEST_P(AttendTest, WhatATokenMayNotSeeDoesNotShow) {
  const float infinity = std::numeric_limits<float>::infinity();
  const KvShape shape = {DeviceKvType::kF16, 1, 300, 2, 1, 32};
  for (const int64_t window : {0, 20}) {
    Problem problem(shape, Prompt(0, 200, 300), window);
    problem.Fill();
    const std::vector<float> expected = Attend(problem);
    const std::vector<float> bad(32, infinity), nan(32, std::nanf(""));
    problem.k.Store({0, 270}, 0, nan.data());
    problem.v.Store({0, 275}, 0, bad.data());
    if (window > 0) problem.v.Store({0, 150}, 0, nan.data());
    const std::vector<float> out = Attend(problem);
    const int64_t n = 2 * 32;  // of a token
    EXPECT_TRUE(same_bits({out.begin(), out.begin() + 70 * n},
                          {expected.begin(), expected.begin() + 70 * n}));
    for (int64_t i = 70 * n; i < 71 * n; ++i) EXPECT_TRUE(std::isnan(out[i])) << i;
    if (window > 0) {  // out of sight again
      EXPECT_TRUE(same_bits({out.begin() + 95 * n, out.end()},
                            {expected.begin() + 95 * n, expected.end()}));
    }
  }
}

TEST_P(AttendTest, NanInAQueryIsItsOwn) {
  const KvShape shape = {DeviceKvType::kF16, 1, 300, 4, 2, 32};
  Problem problem(shape, Prompt(0, 290, 300), 0);
  problem.Fill();
  const std::vector<float> expected = Attend(problem);
  problem.q[(3 * 4 + 2) * 32 + 5] = std::nanf("");  // token 3, head 2
  const std::vector<float> out = Attend(problem);
  for (int64_t i = 0; i < std::ssize(out); ++i) {
    if (i / 32 == 3 * 4 + 2) {
      EXPECT_TRUE(std::isnan(out[i])) << i;
    } else {
      EXPECT_EQ(out[i], expected[i]) << i;
    }
  }
}

// Scores a hundred apart: weights that underflow, tiles whose max comes late or early.
TEST_P(AttendTest, LargeScoresAreCloseToF64) {
  const KvShape shape = {DeviceKvType::kF16, 1, 900, 2, 2, 32};
  Problem problem(shape, {{0, 899}, {0, 300}}, 0);
  problem.Fill();
  problem.scale = 20.0f;
  ExpectCloseToF64(problem);
}

// A prompt in one step: stored by rope_store, read in the same stream; then the same token by
// token.
TEST_P(AttendTest, PromptEqualsTokenByToken) {
  for (const DeviceKvType type : kTypes) {
    const KvShape shape = {type, 2, 300, 4, 2, 64};
    const int32_t n = 40, first = 240;
    Problem problem(shape, Prompt(1, first, first + n), 0);
    problem.Fill();  // places of the prompt are stored again
    const std::vector<float> k = random_values(n * 2 * 64, 31), v = random_values(n * 2 * 64, 32);
    const std::vector<float> cos = random_values(n * 32, 33), sin = random_values(n * 32, 34);
    const auto run = [&](const DeviceKv& kv, int64_t t, int64_t n_tokens, float* out) {
      const int64_t max_position = first + t + n_tokens - 1;
      const DeviceToken* tokens = device_->Upload(problem.tokens) + t;
      float* q = device_->Upload(problem.q) + t * 4 * 64;
      EXPECT_EQ(ops_.rope_store(stream_, q, device_->Upload(k) + t * 2 * 64,
                                device_->Upload(v) + t * 2 * 64, device_->Upload(cos) + t * 32,
                                device_->Upload(sin) + t * 32, 64, tokens, n_tokens, 4, kv),
                0);
      void* workspace = device_->Allocate<uint8_t>(attend_bytes(n_tokens, 4, 64, max_position));
      device_->Check(ops_.attend(stream_, q, tokens, n_tokens, 4, kv, problem.scale, 0,
                                 max_position, out + t * 4 * 64, workspace));
    };
    float* at_once = device_->Allocate<float>(n * 4 * 64);
    float* one_by_one = device_->Allocate<float>(n * 4 * 64);
    run(Upload(device_.get(), shape, problem.k, problem.v), 0, n, at_once);
    const DeviceKv kv = Upload(device_.get(), shape, problem.k, problem.v);
    for (int64_t t = 0; t < n; ++t) run(kv, t, 1, one_by_one);
    EXPECT_TRUE(same_bits(device_->Download(at_once, n * 4 * 64),
                          device_->Download(one_by_one, n * 4 * 64)));
  }
}

INSTANTIATE_DEVICE_TESTS(AttendTest);

}  // namespace
}  // namespace thermocline::kernels::testing
