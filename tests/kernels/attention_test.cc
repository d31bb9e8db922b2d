// Attention of one query head: every level against the reference, the levels against f64, and that
// neither the split of tiles nor later positions matter.
#include <limits>

#include "common/gguf/half.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

constexpr KvType kTypes[] = {KvType::kF16, KvType::kF32};

// One KV head's cache of n_positions, the last row ending at a page without access.
class Cache {
 public:
  Cache(KvType type, std::vector<float> k, std::vector<float> v, int64_t d_head, int64_t stride)
      : k_(std::move(k)),
        v_(std::move(v)),
        d_head_(d_head),
        stride_(stride),
        f32_{AtPageEnd<float>(laid_out(k_)), AtPageEnd<float>(laid_out(v_))},
        f16_{AtPageEnd<uint16_t>(std::ssize(laid_out(k_))),
             AtPageEnd<uint16_t>(std::ssize(laid_out(v_)))} {
    kv_ = {.k = f32_[0].data(), .v = f32_[1].data(), .type = type, .stride = stride};
    if (type == KvType::kF32) return;
    const int64_t n = std::ssize(laid_out(k_));
    for (int i = 0; i < 2; ++i) {
      ops(Isa::kReference).f32_to_f16(f32_[i].data(), n, f16_[i].data());
      for (float& value : i == 0 ? k_ : v_) value = f16_to_f32(thermocline::f32_to_f16(value));
    }
    kv_.k = f16_[0].data();
    kv_.v = f16_[1].data();
  }

  // Values as the cache has rounded them.
  const float* k(int64_t position) const { return &k_[position * d_head_]; }
  const float* v(int64_t position) const { return &v_[position * d_head_]; }
  const KvHead& head() const { return kv_; }
  int64_t n_positions() const { return std::ssize(k_) / d_head_; }
  int64_t d_head() const { return d_head_; }

 private:
  // [n_positions, d_head] -> rows `stride` apart, nothing after the last; gaps are NaN.
  std::vector<float> laid_out(const std::vector<float>& rows) const {
    const int64_t n = std::ssize(rows) / d_head_;
    std::vector<float> cache((n - 1) * stride_ + d_head_, std::nanf(""));
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(&rows[i * d_head_], d_head_, &cache[i * stride_]);
    }
    return cache;
  }

  std::vector<float> k_, v_;  // [n_positions, d_head]
  int64_t d_head_, stride_;
  AtPageEnd<float> f32_[2];
  AtPageEnd<uint16_t> f16_[2];
  KvHead kv_;
};

Cache random_cache(KvType type, int64_t n_positions, int64_t d_head, int64_t stride) {
  return Cache(type, random_values(n_positions * d_head, 11),
               random_values(n_positions * d_head, 12), d_head, stride);
}

int64_t n_tiles(int64_t n_positions) { return (n_positions + kAttentionTile - 1) / kAttentionTile; }

std::vector<float> partials(Isa isa, const std::vector<float>& q, const Cache& cache,
                            int64_t n_positions, float scale, int64_t tile_begin,
                            int64_t tile_end) {
  AtPageEnd<float> q_at(q), partial((tile_end - tile_begin) * (2 + cache.d_head()));
  ops(isa).attend_tiles(q_at.data(), cache.head(), n_positions, cache.d_head(), scale, tile_begin,
                        tile_end, partial.data());
  return partial.values();
}

// All tiles at once, merged, divided.
std::vector<float> attend(Isa isa, const std::vector<float>& q, const Cache& cache,
                          int64_t n_positions, float scale) {
  const int64_t tiles = n_tiles(n_positions);
  AtPageEnd<float> partial(partials(isa, q, cache, n_positions, scale, 0, tiles));
  AtPageEnd<float> state(std::vector<float>(2 + cache.d_head(), 0.0f)), out(cache.d_head());
  ops(isa).attend_merge(partial.data(), tiles, cache.d_head(), state.data());
  ops(isa).attend_finish(state.data(), cache.d_head(), out.data());
  return out.values();
}

class AttentionTest : public testing::TestWithParam<Isa> {};

TEST_P(AttentionTest, EveryShapeEqualsTheReference) {
  for (const KvType type : kTypes) {
    for (const int64_t d_head :
         {1, 2, 7, 15, 16, 17, 31, 32, 48, 64, 80, 100, 128, 129, 200, 512}) {
      for (const int64_t n : {1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 300}) {
        const Cache cache = random_cache(type, n, d_head, n % 2 == 0 ? d_head : 2 * d_head + 3);
        const std::vector<float> q = random_values(d_head, 13);
        const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
        EXPECT_TRUE(same_bits(partials(GetParam(), q, cache, n, scale, 0, n_tiles(n)),
                              partials(Isa::kReference, q, cache, n, scale, 0, n_tiles(n))))
            << "d_head " << d_head << ", positions " << n;
        EXPECT_TRUE(same_bits(attend(GetParam(), q, cache, n, scale),
                              attend(Isa::kReference, q, cache, n, scale)))
            << "d_head " << d_head << ", positions " << n;
      }
    }
  }
}

// Softmax(q K^T scale) V in f64, and how far f32 may be from it.
void judge(const std::vector<float>& q, const Cache& cache, float scale,
           std::vector<double>* expected, std::vector<double>* tolerance) {
  const int64_t n = cache.n_positions(), d_head = cache.d_head();
  std::vector<double> score(n, 0.0);
  double magnitude = 0;  // of a score's terms
  for (int64_t i = 0; i < n; ++i) {
    double terms = 0;
    for (int64_t d = 0; d < d_head; ++d) {
      score[i] += double{q[d]} * cache.k(i)[d] * scale;
      terms += std::abs(double{q[d]} * cache.k(i)[d] * scale);
    }
    magnitude = std::max(magnitude, terms);
  }
  const double max = *std::max_element(score.begin(), score.end());
  // A score: at most d_head / 16 + 1 roundings in a lane, 4 in the tree, the scale; then score -
  // max (of a tile) and max - max (in each merge), each below 2 * magnitude in size, and the error
  // of max itself cancels. exp: 2 each. Sums: 64 positions in a tile, two operations a merge.
  const double tiles = static_cast<double>(n_tiles(n));
  const double of_score = (static_cast<double>(d_head) / 16 + 6) * magnitude;
  const double roundings =
      of_score + 2 * magnitude * (1 + tiles) + 2 * (1 + tiles) + 64 + 2 * tiles;
  expected->assign(d_head, 0.0);
  tolerance->assign(d_head, 0.0);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double p = std::exp(score[i] - max);
    sum += p;
    for (int64_t d = 0; d < d_head; ++d) {
      (*expected)[d] += p * cache.v(i)[d];
      (*tolerance)[d] += p * std::abs(cache.v(i)[d]);
    }
  }
  for (int64_t d = 0; d < d_head; ++d) {
    (*expected)[d] /= sum;
    // Above and below the fraction alike, and one division.
    (*tolerance)[d] *= 1.01 * (2 * roundings + 1) * kRounding / sum;
  }
}

TEST_P(AttentionTest, IsCloseToF64) {
  for (const KvType type : kTypes) {
    for (const int64_t d_head : {16, 64, 100}) {
      for (const int64_t n : {1, 63, 64, 65, 300}) {
        const Cache cache = random_cache(type, n, d_head, d_head);
        const std::vector<float> q = random_values(d_head, 14);
        const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
        std::vector<double> expected, tolerance;
        judge(q, cache, scale, &expected, &tolerance);
        EXPECT_TRUE(within(attend(GetParam(), q, cache, n, scale), expected, tolerance))
            << "d_head " << d_head << ", positions " << n;
      }
    }
  }
}

TEST_P(AttentionTest, SplitOfTilesBetweenCallsDoesNotMatter) {
  const int64_t d_head = 100, n = 5 * kAttentionTile - 20;
  const Cache cache = random_cache(KvType::kF16, n, d_head, d_head);
  const std::vector<float> q = random_values(d_head, 15);
  const std::vector<float> expected = attend(GetParam(), q, cache, n, 0.1f);
  for (int cut = 0; cut < 16; ++cut) {  // bit i: a call ends after tile i
    std::vector<float> state(2 + d_head, 0.0f), out(d_head);
    for (int64_t begin = 0, end = 1; end <= 5; ++end) {
      if (end < 5 && (cut >> (end - 1) & 1) == 0) continue;
      const std::vector<float> partial = partials(GetParam(), q, cache, n, 0.1f, begin, end);
      ops(GetParam()).attend_merge(partial.data(), end - begin, d_head, state.data());
      begin = end;
    }
    ops(GetParam()).attend_finish(state.data(), d_head, out.data());
    EXPECT_TRUE(same_bits(out, expected)) << "cut " << cut;
  }
}

// A prompt's token attends in a cache that later tokens have filled already; decode, in one that
// ends with it.
TEST_P(AttentionTest, LaterPositionsInTheCacheDoNotMatter) {
  const int64_t d_head = 64, n = 130;
  const std::vector<float> k = random_values(n * d_head, 16), v = random_values(n * d_head, 17);
  const std::vector<float> q = random_values(d_head, 18);
  const Cache full(KvType::kF16, k, v, d_head, d_head);
  for (int64_t end = 1; end <= n; ++end) {
    const Cache begun(KvType::kF16, {k.begin(), k.begin() + end * d_head},
                      {v.begin(), v.begin() + end * d_head}, d_head, d_head);
    EXPECT_TRUE(same_bits(attend(GetParam(), q, full, end, 0.125f),
                          attend(GetParam(), q, begun, end, 0.125f)))
        << end;
  }
}

TEST_P(AttentionTest, OnePositionGivesItsValue) {
  const Cache cache = random_cache(KvType::kF32, 1, 100, 100);
  EXPECT_TRUE(same_bits(attend(GetParam(), random_values(100, 19), cache, 1, 0.1f),
                        {cache.v(0), cache.v(0) + 100}));
}

// Scores of -1e4 except one of +1e4, wherever it stands: its value comes out exactly.
TEST_P(AttentionTest, OverwhelmingScoreTakesAll) {
  const int64_t d_head = 32, n = 200;
  const std::vector<float> v = random_values(n * d_head, 20);
  for (const int64_t winner : {0, 63, 64, 100, 199}) {
    std::vector<float> k(n * d_head, 0.0f), q(d_head, 0.0f);
    q[3] = 1.0f;
    for (int64_t i = 0; i < n; ++i) k[i * d_head + 3] = i == winner ? 1e4f : -1e4f;
    const Cache cache(KvType::kF32, k, v, d_head, d_head);
    EXPECT_EQ(attend(GetParam(), q, cache, n, 1.0f),
              std::vector<float>(cache.v(winner), cache.v(winner) + d_head))
        << winner;
  }
}

TEST_P(AttentionTest, EqualScoresGiveTheMeanHoweverLarge) {
  const int64_t d_head = 16, n = 128;
  for (const float size : {-1e4f, 0.0f, 1e4f}) {
    const Cache cache(KvType::kF16, std::vector<float>(n * d_head, size),
                      std::vector<float>(n * d_head, 0.75f), d_head, d_head);
    EXPECT_THAT(attend(GetParam(), std::vector<float>(d_head, 1.0f), cache, n, 1.0f),
                testing::Each(0.75f))
        << size;
  }
}

// fma(1e-30, -1e-30, 0) is -0: a level that added +0 to lanes without an element would lose it.
TEST_P(AttentionTest, ScoreThatUnderflowsKeepsItsSign) {
  const int64_t d_head = 20;
  const Cache cache(KvType::kF32, std::vector<float>(d_head, -1e-30f),
                    std::vector<float>(d_head, 1.0f), d_head, d_head);
  const std::vector<float> q(d_head, 1e-30f);
  const std::vector<float> partial = partials(GetParam(), q, cache, 1, 1.0f, 0, 1);
  EXPECT_EQ(partial[0], 0.0f);
  EXPECT_TRUE(std::signbit(partial[0]));
}

TEST_P(AttentionTest, NanInKeysOrInfiniteScoresAreNotHidden) {
  const int64_t d_head = 24, n = 70;
  const std::vector<float> q(d_head, 1.0f);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const int64_t at : {0, 40, 65, 69}) {
      std::vector<float> k = random_values(n * d_head, 21);
      k[at * d_head + 20] = bad;
      const Cache cache(KvType::kF32, k, random_values(n * d_head, 22), d_head, d_head);
      const std::vector<float> out = attend(GetParam(), q, cache, n, 1.0f);
      EXPECT_TRUE(same_bits(partials(GetParam(), q, cache, n, 1.0f, 0, 2),
                            partials(Isa::kReference, q, cache, n, 1.0f, 0, 2)));
      for (const float value : out) EXPECT_TRUE(std::isnan(value)) << bad << " at " << at;
    }
  }
}

TEST_P(AttentionTest, MergeIntoAnEmptyStateCopies) {
  const std::vector<float> partial = {-7.0f, 2.0f, -0.0f, 3.0f, 4.0f};
  std::vector<float> state(5, 0.0f);
  ops(GetParam()).attend_merge(partial.data(), 1, 3, state.data());
  EXPECT_TRUE(same_bits(state, partial));
}

INSTANTIATE_TEST_SUITE_P(Levels, AttentionTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
