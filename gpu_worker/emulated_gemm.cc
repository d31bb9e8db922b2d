// f16 products on the host, for the emulated device. Compiled for the AVX2 level, which that device
// needs anyway; so there is no STL here (kernels/CMakeLists.txt).
#include <immintrin.h>

#include "gpu_worker/gemm.h"

namespace thermocline {
namespace {

// Of a tile: its weights as f32 are 16 KiB, half of the first cache. The sums of 4 tokens and 16
// columns are 8 of the 16 registers.
constexpr int64_t kDepth = 256, kColumns = 16, kTokens = 4;

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

void Widen(const uint16_t* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(eight));
  }
  for (; i < n; ++i) to[i] = _cvtsh_ss(from[i]);
}

// b's part from (k, n), with zeros where it ends before the tile does.
void LoadWeights(const GemmCall& call, int64_t k, int64_t depth, int64_t n,
                 float (*tile)[kColumns]) {
  const int64_t n_columns = Min(kColumns, call.n - n);
  for (int64_t i = 0; i < depth; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) tile[i][j] = 0.0f;
    if (call.weights == GemmWeights::kNeurons) {
      Widen(call.b + (k + i) * call.n + n, n_columns, tile[i]);
    }
  }
  if (call.weights == GemmWeights::kNeurons) return;
  for (int64_t j = 0; j < n_columns; ++j) {
    float row[kDepth];
    Widen(call.b + (n + j) * call.k + k, depth, row);
    for (int64_t i = 0; i < depth; ++i) tile[i][j] = row[i];
  }
}

void AddTile(const float (*a)[kDepth], const float (*tile)[kColumns], int64_t depth,
             float (*sums)[kColumns]) {
  __m256 sum[kTokens][2];
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int h = 0; h < 2; ++h) sum[t][h] = _mm256_loadu_ps(sums[t] + 8 * h);
  }
  for (int64_t i = 0; i < depth; ++i) {
    const __m256 low = _mm256_loadu_ps(tile[i]), high = _mm256_loadu_ps(tile[i] + 8);
    for (int64_t t = 0; t < kTokens; ++t) {
      const __m256 factor = _mm256_broadcast_ss(&a[t][i]);
      sum[t][0] = _mm256_fmadd_ps(factor, low, sum[t][0]);
      sum[t][1] = _mm256_fmadd_ps(factor, high, sum[t][1]);
    }
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int h = 0; h < 2; ++h) _mm256_storeu_ps(sums[t] + 8 * h, sum[t][h]);
  }
}

// Of all tokens with a tile of weights.
void AddTokens(const GemmCall& call, int64_t k, int64_t depth, int64_t n,
               const float (*tile)[kColumns]) {
  const int64_t n_columns = Min(kColumns, call.n - n);
  for (int64_t first = 0; first < call.n_tokens; first += kTokens) {
    const int64_t n_tokens = Min(kTokens, call.n_tokens - first);
    float a[kTokens][kDepth] = {}, sums[kTokens][kColumns] = {};
    const bool continues = call.adds || k > 0;
    for (int64_t t = 0; t < n_tokens; ++t) {
      Widen(call.a + (first + t) * call.a_stride + k, depth, a[t]);
      const float* c = call.c + (first + t) * call.c_stride + n;
      for (int64_t j = 0; j < n_columns && continues; ++j) sums[t][j] = c[j];
    }
    AddTile(a, tile, depth, sums);
    for (int64_t t = 0; t < n_tokens; ++t) {
      float* c = call.c + (first + t) * call.c_stride + n;
      for (int64_t j = 0; j < n_columns; ++j) c[j] = sums[t][j];
    }
  }
}

}  // namespace

void emulated_gemm(const GemmCall& call) {
  for (int64_t k = 0; k < call.k; k += kDepth) {
    const int64_t depth = Min(kDepth, call.k - k);
    for (int64_t n = 0; n < call.n; n += kColumns) {
      float tile[kDepth][kColumns];
      LoadWeights(call, k, depth, n, tile);
      AddTokens(call, k, depth, n, tile);
    }
  }
}

}  // namespace thermocline
