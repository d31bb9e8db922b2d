// Times the matmul kernels of each ISA level beside the machine's own limits, measured in the same
// run: GB/s of a GEMV and of the kernels of active neurons next to the plain read of the same
// threads, GMAC/s of a GEMM of 128 tokens next to a loop of nothing but multiplications. Not a
// test; use: kernel_bench [TYPE...]
#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/bench/against_read.h"
#include "tests/bench/sparse_bench.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kCols = 4096;
constexpr int64_t kGemmTokens = 128;
constexpr int64_t kGemmRows = 1024;

// Activations in both forms; their values do not matter to the time.
struct Activations {
  std::vector<float> x = std::vector<float>(kGemmTokens * kCols, 0.5f);
  std::vector<int8_t> q = std::vector<int8_t>(kGemmTokens * kCols, 3);
  std::vector<float> scale = std::vector<float>(kGemmTokens * kCols / kBlockCols, 0.01f);
  std::vector<int32_t> sum = std::vector<int32_t>(kGemmTokens * kCols / kBlockCols, 96);
};

void multiply(const Ops& level, const PackedMatrix& w, int64_t begin, int64_t end,
              const Activations& a, int64_t n_tokens, float* out) {
  if (type_info(w.type)->is_float) {
    level.matmul_f32(w, begin, end, a.x.data(), kCols, n_tokens, out, w.n_rows);
  } else {
    const QuantizedRows x = {a.q.data(), a.scale.data(), a.sum.data(), kCols};
    level.matmul_int8(w, begin, end, x, n_tokens, out, w.n_rows);
  }
}

Streaming gemv_streaming(const Ops& level, TensorType type, const Activations& a) {
  const int64_t group_bytes = packed_layout(type, kGroupRows, 0, kCols).group_bytes;
  const int64_t n_groups = kPieceBytes / group_bytes;
  const PackedMatrix w = packed_layout(type, n_groups * kGroupRows, 0, kCols);
  auto out = std::make_shared<std::vector<float>>(w.n_rows);
  const auto work = [=, &level, &a](const uint8_t* data, int thread, int n_threads) {
    PackedMatrix matrix = w;
    matrix.data = data;
    const int64_t begin = n_groups * thread / n_threads;
    multiply(level, matrix, begin, n_groups * (thread + 1) / n_threads, a, 1,
             out->data() + begin * kGroupRows);
  };
  return {"GEMV", w.n_bytes(), work};
}

// One thread's rate when nothing but registers is involved: rounds of 10 independent instructions.
constexpr int64_t kPeakRounds = 200'000;

__attribute__((target("avx512f,avx512vnni"))) void vnni_rounds() {
  __m512i acc[10] = {};
  for (__m512i& sum : acc) asm volatile("" : "+v"(sum));  // not known to be equal
  __m512i one = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
    asm volatile("" : "+v"(one));
#pragma GCC unroll 10
    for (int j = 0; j < 10; ++j) acc[j] = _mm512_dpbusd_epi32(acc[j], one, one);
  }
  for (__m512i& sum : acc) asm volatile("" ::"v"(sum));
}

__attribute__((target("avx512f"))) void fma_rounds() {
  __m512 acc[10] = {};
  for (__m512& sum : acc) asm volatile("" : "+v"(sum));
  __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < kPeakRounds; ++i) {
    asm volatile("" : "+v"(one));
#pragma GCC unroll 10
    for (int j = 0; j < 10; ++j) acc[j] = _mm512_fmadd_ps(one, one, acc[j]);
  }
  for (__m512& sum : acc) asm volatile("" ::"v"(sum));
}

// In GMAC/s; 0 without AVX-512.
double peak_of(TensorType type) {
  if (!isa_supported(Isa::kAvx512)) return 0;
  const bool is_float = type_info(type)->is_float;
  const double seconds = seconds_of(is_float ? fma_rounds : vnni_rounds);
  return static_cast<double>(kPeakRounds * 10 * (is_float ? 16 : 64)) / seconds * 1e-9;
}

void bench_gemm(const Ops& level, TensorType type, const uint8_t* data, const Activations& a) {
  PackedMatrix w = packed_layout(type, kGemmRows, 0, kCols);
  w.data = data;
  std::vector<float> out(kGemmRows * kGemmTokens);
  std::vector<double> gmacs, peaks;
  for (int sample = 0; sample < 3 * kPasses; ++sample) {
    const double seconds =
        seconds_of([&] { multiply(level, w, 0, w.n_groups(), a, kGemmTokens, out.data()); });
    gmacs.push_back(static_cast<double>(kGemmRows * kGemmTokens * kCols) / seconds * 1e-9);
    peaks.push_back(peak_of(type));
  }
  const double gmac = quantile(gmacs, 0.5), peak = quantile(peaks, 0.5);
  const double best_gmac = quantile(gmacs, 0.9), best_peak = quantile(peaks, 0.9);
  fmt::print("{:8} {:5} {:8.0f} {:8.0f} {:8.0f} % {:9.0f} {:8.0f} {:8.0f} %\n", level.name,
             type_info(type)->name, peak, gmac, 100 * gmac / std::max(peak, 1.0), best_peak,
             best_gmac, 100 * best_gmac / std::max(best_peak, 1.0));
}

int run(const std::vector<std::string>& wanted) {
  const uint8_t* data = allocate_buffer();
  const Activations a;
  const auto for_each = [&](const std::function<void(const Ops&, TensorType)>& bench) {
    for (Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
      if (!isa_supported(isa)) continue;
      for (const TypeInfo& info : kTensorTypes) {
        if (!wanted.empty() && std::count(wanted.begin(), wanted.end(), info.name) == 0) continue;
        bench(ops(isa), info.type);
      }
    }
  };
  fmt::print("GB/s, {} MiB, {} columns\n", kBufferBytes >> 20, kCols);
  print_against_read_heading();
  for (int n_threads : {1, 2}) {
    for_each([&](const Ops& level, TensorType type) {
      bench_against_read(level, type, n_threads, data, gemv_streaming(level, type, a));
      for (const Streaming& streaming : sparse_streamings(level, type, kCols)) {
        bench_against_read(level, type, n_threads, data, streaming);
      }
    });
  }
  fmt::print(
      "\nGEMM, {} tokens, {} rows, {} columns, 1 thread, GMAC/s; peak: of 512-bit registers\n",
      kGemmTokens, kGemmRows, kCols);
  fmt::print("isa      type      peak     GEMM    of peak      peak     GEMM    of peak\n");
  for_each([&](const Ops& level, TensorType type) { bench_gemm(level, type, data, a); });
  return 0;
}

}  // namespace
}  // namespace thermocline::kernels

int main(int argc, char** argv) {
  return thermocline::kernels::run(std::vector<std::string>(argv + 1, argv + argc));
}
