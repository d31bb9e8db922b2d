// Attention over a cache of random values, and what f64 makes of it, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/cuda/kv_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {

// A cache full of random values, and the queries of some tokens.
struct AttendProblem {
  AttendProblem(const KvShape& kv_shape, std::vector<DeviceToken> step_tokens, int64_t step_window)
      : shape(kv_shape),
        tokens(std::move(step_tokens)),
        window(step_window),
        scale(1.0f / std::sqrt(static_cast<float>(shape.d_head))),
        q(random_values(std::ssize(tokens) * shape.n_heads * shape.d_head, 21)),
        k(shape),
        v(shape) {}

  // Values for all positions up to each token's, the same whatever n_ctx is; the others stay NaN.
  void Fill() {
    std::vector<int32_t> n_positions(static_cast<size_t>(shape.n_slots), 0);
    for (const DeviceToken& token : tokens) {
      n_positions[token.slot] = std::max(n_positions[token.slot], static_cast<int32_t>(End(token)));
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
  AttendProblem Part(size_t begin, size_t end) const {
    const auto size = static_cast<size_t>(shape.n_heads) * shape.d_head;
    AttendProblem part = *this;
    part.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
    part.q.assign(q.begin() + begin * size, q.begin() + end * size);
    return part;
  }
  // A token attends to positions [Begin, End).
  int64_t End(const DeviceToken& token) const {
    return std::min<int64_t>(token.position + 1, shape.n_ctx);
  }
  int64_t Begin(const DeviceToken& token) const {
    return window == 0 ? 0 : std::max<int64_t>(0, End(token) - window);
  }
  int64_t MaxPosition() const {
    int64_t largest = 0;
    for (const DeviceToken& token : tokens) largest = std::max(largest, End(token) - 1);
    return largest;
  }
  int64_t n_rows() const { return std::ssize(tokens) * shape.n_heads; }

  KvShape shape;
  std::vector<DeviceToken> tokens;
  int64_t window;
  float scale;
  std::vector<float> q;  // [n_tokens, n_heads, d_head]
  KvPlane k, v;
};

// What is computed, and how far f32 may be from it.
struct Judged {
  explicit Judged(size_t n) : expected(n), tolerance(n) {}

  std::vector<double> expected, tolerance;
};

// One query's attention to positions [begin, end) in f64.
struct AttendRow {
  AttendRow(const AttendProblem& problem, size_t t, int32_t head, int64_t first, int64_t last)
      : begin(first), end(last), o(problem.shape.d_head), terms(problem.shape.d_head) {
    const KvShape& shape = problem.shape;
    const int32_t slot = problem.tokens[t].slot;
    const int32_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
    const float* q = &problem.q[(t * shape.n_heads + head) * shape.d_head];
    std::vector<double> score;
    for (auto position = static_cast<int32_t>(begin); position < end; ++position) {
      double dot = 0, n_terms = 0;
      for (int64_t d = 0; d < shape.d_head; ++d) {
        const double term = q[d] * problem.k.Value({slot, position}, kv_head, d) * problem.scale;
        dot += term;
        n_terms += std::abs(term);
      }
      score.push_back(dot);
      magnitude = std::max(magnitude, n_terms);
      max = std::max(max, dot);
    }
    for (auto position = static_cast<int32_t>(begin); position < end; ++position) {
      const double p = std::exp(score[position - begin] - max);
      sum += p;
      for (int64_t d = 0; d < shape.d_head; ++d) {
        const double term = p * problem.v.Value({slot, position}, kv_head, d);
        o[d] += term;
        terms[d] += std::abs(term);
      }
    }
  }
  // Of f32 as device_ops.h has it: a score has d_head + 1 roundings of at most `magnitude`. score -
  // max and two such differences for each tile are rounded at up to 2 * magnitude, the exps of them
  // by 2 each. Sums: 32 positions and 8 chunks; two operations a merge. Above and below the
  // fraction alike, and one division.
  double roundings() const {
    const auto n_tiles = static_cast<double>((end - 1) / kAttendTile - begin / kAttendTile + 1);
    return 2 * (std::ssize(o) + 1 + 2 * (n_tiles + 1)) * magnitude + 8 * n_tiles + 90;
  }

  int64_t begin, end;
  double max = -std::numeric_limits<double>::infinity(), sum = 0, magnitude = 0;
  std::vector<double> o, terms;  // [d_head]: sum of exp(score - max) * v, and of their magnitudes
};

// [n_tokens, n_heads, d_head]
inline Judged JudgeOut(const AttendProblem& problem) {
  const int64_t d_head = problem.shape.d_head;
  Judged judged(problem.q.size());
  for (int64_t i = 0; i < problem.n_rows(); ++i) {
    const auto t = static_cast<size_t>(i / problem.shape.n_heads);
    const DeviceToken& token = problem.tokens[t];
    const AttendRow row(problem, t, static_cast<int32_t>(i % problem.shape.n_heads),
                        problem.Begin(token), problem.End(token));
    for (int64_t d = 0; d < d_head; ++d) {
      judged.expected[i * d_head + d] = row.o[d] / row.sum;
      judged.tolerance[i * d_head + d] =
          row.terms[d] / row.sum * row.roundings() * kRounding + 0x1p-149;
    }
  }
  return judged;
}

// A cache in device memory, and what attend makes of it there, told of so many positions more than
// are attended to.
struct Attended {
  float* out = nullptr;    // [n_tokens, n_heads, d_head]
  float* state = nullptr;  // [n_tokens, n_heads, 2]
};
inline Attended Attend(TestDevice* device, const AttendProblem& problem, const DeviceKv& kv,
                       bool with_state = true, int64_t more_positions = 0) {
  const KvShape& shape = problem.shape;
  const int64_t n_tokens = std::ssize(problem.tokens);
  const int64_t max_position = problem.MaxPosition() + more_positions;
  Attended attended = {device->Allocate<float>(problem.n_rows() * shape.d_head)};
  if (with_state) attended.state = device->Allocate<float>(problem.n_rows() * 2);
  void* workspace =
      device->Allocate<uint8_t>(attend_bytes(n_tokens, shape.n_heads, shape.d_head, max_position));
  device->Check(device->ops().attend(device->stream(), device->Upload(problem.q),
                                     device->Upload(problem.tokens), n_tokens, shape.n_heads, kv,
                                     problem.scale, problem.window, max_position, attended.out,
                                     attended.state, workspace));
  return attended;
}

}  // namespace thermocline::kernels::testing
