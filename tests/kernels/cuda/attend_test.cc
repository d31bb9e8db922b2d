// Attention over the KV cache: against f64 within a derived bound, and that neither a token's
// neighbours in a step, nor the number of tokens, nor the rest of the cache shows in its bits.
#include "tests/kernels/cuda/attend_testing.h"

namespace thermocline::kernels::testing {
namespace {

constexpr DeviceKvType kTypes[] = {DeviceKvType::kF16, DeviceKvType::kQ8_0};

class AttendTest : public DeviceTest {
 protected:
  using Problem = AttendProblem;

  DeviceKv UploadKv(const Problem& problem) {
    return Upload(device_.get(), problem.shape, problem.k, problem.v);
  }
  // out [n_tokens, n_heads, d_head]; without state
  std::vector<float> Out(const Problem& problem) {
    const Attended attended = Attend(device_.get(), problem, UploadKv(problem), false);
    return device_->Download(attended.out, std::ssize(problem.q));
  }
  // Each token's out, then its state.
  std::vector<std::vector<float>> OfTokens(const Problem& problem, const DeviceKv& kv,
                                           int64_t more_positions = 0) {
    const Attended attended = Attend(device_.get(), problem, kv, true, more_positions);
    const int64_t n_heads = problem.shape.n_heads, n = n_heads * problem.shape.d_head;
    std::vector<std::vector<float>> of_tokens;
    for (int64_t t = 0; t < std::ssize(problem.tokens); ++t) {
      of_tokens.push_back(device_->Download(attended.out + t * n, n));
      for (const float x : device_->Download(attended.state + t * n_heads * 2, n_heads * 2)) {
        of_tokens.back().push_back(x);
      }
    }
    return of_tokens;
  }
  void ExpectCloseToF64(const Problem& problem) {
    const Judged judged = JudgeOut(problem);
    EXPECT_TRUE(within(Out(problem), judged.expected, judged.tolerance))
        << Name(problem.shape) << ", " << problem.tokens.size() << " tokens, window "
        << problem.window;
  }
  // The sum of exps is compared as if its max were the true one.
  void ExpectStateCloseToF64(const Problem& problem) {
    const Attended attended = Attend(device_.get(), problem, UploadKv(problem));
    const std::vector<float> state = device_->Download(attended.state, problem.n_rows() * 2);
    for (int64_t i = 0; i < problem.n_rows(); ++i) {
      const int64_t t = i / problem.shape.n_heads;
      const DeviceToken& token = problem.tokens[t];
      const AttendRow row(problem, t, static_cast<int32_t>(i % problem.shape.n_heads),
                          problem.Begin(token), problem.End(token));
      EXPECT_NEAR(state[2 * i], row.max, (problem.shape.d_head + 1) * row.magnitude * kRounding)
          << Name(problem.shape) << ", row " << i;
      EXPECT_NEAR(state[2 * i + 1] * std::exp(state[2 * i] - row.max), row.sum,
                  row.roundings() / 2 * kRounding * row.sum)
          << Name(problem.shape) << ", row " << i;
    }
  }
  // Each of the tokens has in the step the bits that it has alone.
  void ExpectBitsOfTokensAlone(const Problem& problem, size_t every = 1) {
    const DeviceKv kv = UploadKv(problem);
    const std::vector<std::vector<float>> together = OfTokens(problem, kv);
    for (size_t t = 0; t < problem.tokens.size(); t += every) {
      EXPECT_TRUE(same_bits(together[t], OfTokens(problem.Part(t, t + 1), kv)[0]))
          << Name(problem.shape) << ", token " << t << " of " << problem.tokens.size()
          << ", window " << problem.window;
    }
  }
};

TEST_P(AttendTest, IsCloseToF64) {
  const struct {
    int32_t n_heads, n_kv_heads, d_head;
  } kShapes[] = {{1, 1, 32},  {2, 2, 64},  {6, 2, 96},  {4, 4, 128}, {7, 1, 128},
                 {16, 1, 64}, {24, 1, 32}, {8, 4, 160}, {9, 1, 256}, {40, 2, 128},
                 {2, 1, 4},   {16, 1, 72}, {4, 2, 80},  {9, 3, 100}, {9, 1, 252}};
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
    const KvShape shape = {type, 4, 530, 6, 2, 72};
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

TEST_P(AttendTest, WithoutPartialsLateTokensHaveTheBitsTheyHaveAlone) {
  for (const DeviceKvType type : kTypes) {
    Problem problem({type, 1, 260, 64, 4, 36}, Prompt(0, 230, 295), 0);
    ASSERT_GT(problem.n_rows(), 4096);
    problem.Fill();
    ExpectBitsOfTokensAlone(problem, 5);
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
  const std::vector<float> out = Out(problem);
  EXPECT_TRUE(same_bits(Out(problem), out));
  const Attended with_state = Attend(device_.get(), problem, UploadKv(problem));
  EXPECT_TRUE(same_bits(device_->Download(with_state.out, std::ssize(out)), out));
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
      EXPECT_TRUE(same_bits(Out(problem), value));
    }
  }
}

TEST_P(AttendTest, StateIsCloseToF64) {
  for (const DeviceKvType type : kTypes) {
    for (const int64_t window : {0, 40}) {
      Problem few({type, 2, 600, 6, 2, 64}, {{1, 0}, {0, 255}, {1, 256}, {0, 599}}, window);
      few.Fill();
      ExpectStateCloseToF64(few);
    }
  }
}

// In one step with others, at one place of the cache and at several.
TEST_P(AttendTest, TokensOfTheTailAttendToAllOfTheCache) {
  for (const DeviceKvType type : kTypes) {
    for (const int32_t n_ctx : {1, 33, 256, 300}) {
      Problem few({type, 2, n_ctx, 6, 2, 32},
                  {{1, n_ctx - 1}, {0, n_ctx - 1}, {0, n_ctx}, {0, n_ctx + 1}, {1, 5000}}, 0);
      few.Fill();
      ExpectCloseToF64(few);
      ExpectStateCloseToF64(few);
      ExpectBitsOfTokensAlone(few);
    }
  }
}

// As a graph's launches are, which are for many steps. What the cache has no room for would be read
// out of bounds.
TEST_P(AttendTest, LaunchesForMorePositionsThanAreAttendedToGiveTheSameBits) {
  for (const DeviceKvType type : kTypes) {
    for (const int64_t window : {0, 40}) {
      Problem problem({type, 1, 600, 6, 2, 64}, {{0, 0}}, window);
      for (const int32_t position : {0, 255, 256, 599}) {
        problem.tokens = {{0, position}};
        problem.Fill();
        const DeviceKv kv = UploadKv(problem);
        const std::vector<std::vector<float>> expected = OfTokens(problem, kv);
        for (const int64_t more : {int64_t{1}, kAttendTile, 7 * kAttendTile, 40 * kAttendTile}) {
          EXPECT_TRUE(same_bits(OfTokens(problem, kv, more)[0], expected[0]))
              << Name(problem.shape) << ", position " << position << " and " << more << " more";
        }
      }
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
    const std::vector<float> expected = Out(problem);
    const std::vector<float> bad(32, infinity), nan(32, std::nanf(""));
    problem.k.Store({0, 270}, 0, nan.data());
    problem.v.Store({0, 275}, 0, bad.data());
    if (window > 0) problem.v.Store({0, 150}, 0, nan.data());
    const std::vector<float> out = Out(problem);
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
  const std::vector<float> expected = Out(problem);
  problem.q[(3 * 4 + 2) * 32 + 5] = std::nanf("");  // token 3, head 2
  const std::vector<float> out = Out(problem);
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
                                 max_position, out + t * 4 * 64, nullptr, workspace));
    };
    float* at_once = device_->Allocate<float>(n * 4 * 64);
    float* one_by_one = device_->Allocate<float>(n * 4 * 64);
    run(UploadKv(problem), 0, n, at_once);
    const DeviceKv kv = UploadKv(problem);
    for (int64_t t = 0; t < n; ++t) run(kv, t, 1, one_by_one);
    EXPECT_TRUE(same_bits(device_->Download(at_once, n * 4 * 64),
                          device_->Download(one_by_one, n * 4 * 64)));
  }
}

INSTANTIATE_DEVICE_TESTS(AttendTest);

}  // namespace
}  // namespace thermocline::kernels::testing
