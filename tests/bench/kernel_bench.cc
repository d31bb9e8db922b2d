// Times the matmul kernels of each ISA level beside the machine's own limits, measured in the same
// run: GB/s of a GEMV next to the plain read of the same threads, GMAC/s of a GEMM of 128 tokens
// next to a loop of nothing but multiplications. Not a test; use: kernel_bench [TYPE...]
#include <fmt/format.h>
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/ops.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kBufferBytes = int64_t{512} << 20;
// A sample is short, so that on a busy machine some are undisturbed; pieces are read and multiplied
// half a buffer apart, so that neither finds the other's in a cache.
constexpr int kPieces = 8;
constexpr int kPasses = 5;
constexpr int64_t kCols = 4096;
constexpr int64_t kGemmTokens = 128;
constexpr int64_t kGemmRows = 1024;

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// From the first start to the last end of work(thread) in n_threads threads, by their own clocks:
// this thread may be woken late.
double seconds_of_threads(int n_threads, const std::function<void(int)>& work) {
  std::barrier gate(n_threads);
  std::vector<Clock::time_point> starts(n_threads), ends(n_threads);
  std::vector<std::thread> threads;
  for (int i = 0; i < n_threads; ++i) {
    threads.emplace_back([&, i] {
      gate.arrive_and_wait();
      starts[i] = Clock::now();
      work(i);
      ends[i] = Clock::now();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(*std::max_element(ends.begin(), ends.end()) -
                                       *std::min_element(starts.begin(), starts.end()))
      .count();
}

// The value below which `share` of the samples lie. The median says how fast it was, the best tenth
// (0.9) how fast it is when neighbours on a shared machine leave it alone.
double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size()))];
}

// Zero-filled huge pages for the life of the process.
uint8_t* allocate(int64_t n_bytes) {
  void* p = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    fmt::print(stderr, "kernel_bench: no memory for {} MiB\n", n_bytes >> 20);
    std::exit(1);
  }
  madvise(p, n_bytes, MADV_HUGEPAGE);
  return static_cast<uint8_t*>(p);
}

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

void bench_gemv(const Ops& level, TensorType type, int n_threads, const uint8_t* data,
                const Activations& a) {
  const int64_t group_bytes = packed_layout(type, kGroupRows, 0, kCols).group_bytes;
  const int64_t piece_groups = kBufferBytes / group_bytes / kPieces;
  PackedMatrix w = packed_layout(type, piece_groups * kPieces * kGroupRows, 0, kCols);
  w.data = data;
  std::vector<float> out(w.n_rows);
  volatile uint64_t sink = 0;
  std::vector<double> read_gbps, gemv_gbps;
  // Thread i's groups of a piece.
  const auto first_group = [&](int piece, int i) {
    return (piece % kPieces) * piece_groups + piece_groups * i / n_threads;
  };
  const auto last_group = [&](int piece, int i) {
    return (piece % kPieces) * piece_groups + piece_groups * (i + 1) / n_threads;
  };
  for (int piece = 0; piece < kPieces * kPasses; ++piece) {
    const double read = seconds_of_threads(n_threads, [&](int i) {
      const int64_t begin = first_group(piece, i), end = last_group(piece, i);
      sink = sink + level.read_sum(data + begin * group_bytes, (end - begin) * group_bytes);
    });
    const double gemv = seconds_of_threads(n_threads, [&](int i) {
      const int64_t begin = first_group(piece + kPieces / 2, i);
      multiply(level, w, begin, last_group(piece + kPieces / 2, i), a, 1,
               out.data() + begin * kGroupRows);
    });
    const double gigabytes = static_cast<double>(piece_groups * group_bytes) * 1e-9;
    read_gbps.push_back(gigabytes / read);
    gemv_gbps.push_back(gigabytes / gemv);
  }
  const double read = quantile(read_gbps, 0.5), gemv = quantile(gemv_gbps, 0.5);
  const double best_read = quantile(read_gbps, 0.9), best_gemv = quantile(gemv_gbps, 0.9);
  fmt::print("{:8} {:5} {:7} {:8.1f} {:8.1f} {:8.0f} % {:9.1f} {:8.1f} {:8.0f} %\n", level.name,
             type_info(type)->name, n_threads, read, gemv, 100 * gemv / read, best_read, best_gemv,
             100 * best_gemv / best_read);
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
  uint8_t* data = allocate(kBufferBytes);
  // As f16 about 0.08; as quants and sub-scales any number.
  for (int64_t i = 0; i < kBufferBytes; ++i) data[i] = static_cast<uint8_t>(0x28 | (i * 7 & 7));
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
  fmt::print("GEMV, {} MiB, {} columns, GB/s       median                     best tenth\n",
             kBufferBytes >> 20, kCols);
  fmt::print("isa      type  threads     read     GEMV    of read      read     GEMV    of read\n");
  for (int n_threads : {1, 2}) {
    for_each(
        [&](const Ops& level, TensorType type) { bench_gemv(level, type, n_threads, data, a); });
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
