// One function for each op, or for a few that are alike.
#include "tests/bench/device_bench_cases.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace thermocline::kernels {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kHalfBytes = sizeof(uint16_t);
constexpr int64_t kTopK = 40;
// Of the issue: a matrix that is large enough to hide a kernel's start reaches these.
constexpr int64_t kTargetBytes = 25'000'000;

int64_t Aligned(int64_t n_bytes) { return (n_bytes + 255) / 256 * 256; }

double TargetOf(TensorType type) {
  if (type == TensorType::kF16) return 0.85;
  return type == TensorType::kQ4_0 || type == TensorType::kQ4_K ? 0.75 : 0;
}

int64_t RowsBytes(int64_t n) { return n + n / 32 * 8; }  // of int8 activations

// A prompt's inputs come from memory, a token's from a cache.
int64_t PromptStride(int64_t n_tokens, int64_t n_bytes) {
  return n_tokens == 1 ? 0 : Aligned(n_bytes);
}
const float* InputOf(const DeviceInputs& in, int64_t n_tokens, const uint8_t* copy) {
  return n_tokens == 1 ? in.x : reinterpret_cast<const float*>(copy);
}

// [n_rows, d_model]: the matrices of a layer, and the output's.
void AddMatmul(const DeviceInputs& in, TensorType type, int64_t n_rows, int64_t n_tokens,
               bool is_sparse, std::vector<DeviceCase>* cases) {
  const DeviceMatrix shape = device_layout(type, n_rows, 0, in.sizes.d_model);
  const RowList list = is_sparse ? in.tenth : RowList{};
  const int64_t n_read = is_sparse ? list.max : n_rows;
  const int64_t weight_bytes =
      device_matrix_bytes(device_layout(type, n_read, 0, in.sizes.d_model)) +
      (is_sparse ? 4 * n_read : 0);
  const bool is_float = type_info(type)->is_float;
  const int64_t x_bytes = is_float ? kFloatBytes * in.sizes.d_model : RowsBytes(in.sizes.d_model);
  const bool has_target = n_tokens == 1 && !is_sparse && weight_bytes >= kTargetBytes;
  cases->push_back(
      {"matmul",
       fmt::format("{} x {}{}", n_rows, in.sizes.d_model, is_sparse ? ", 10 % of rows" : ""),
       type_info(type)->name, n_tokens, weight_bytes + n_tokens * (x_bytes + kFloatBytes * n_read),
       Aligned(device_matrix_bytes(shape)), has_target ? TargetOf(type) : 0,
       [=, &in](const uint8_t* copy) {
         DeviceMatrix w = shape;
         place_device_matrix(copy, &w);
         return in.ops->matmul(in.stream, w, list, in.int8, in.x, in.sizes.d_model, n_tokens,
                               in.out, n_rows);
       }});
}

void AddNeurons(const DeviceInputs& in, TensorType type, bool is_transposed, bool all,
                std::vector<DeviceCase>* cases) {
  const auto layout_of = [&](int64_t n_neurons, int64_t n_blocks) {
    return is_transposed ? device_transposed_layout(type, n_neurons, in.sizes.d_model)
                         : device_neuron_layout(type, n_neurons, n_blocks, in.sizes.d_model);
  };
  const DeviceNeurons shape = layout_of(in.sizes.d_ff, in.sizes.d_ff / 32);
  const RowList list = all ? RowList{} : in.tenth;
  const int64_t n_active = all ? in.sizes.d_ff : list.max;
  int64_t n_blocks = 0;  // whose scales are needed
  for (size_t i = 0; i < in.tenth_rows.size(); ++i) {
    n_blocks += i == 0 || in.tenth_rows[i] / 32 != in.tenth_rows[i - 1] / 32 ? 1 : 0;
  }
  if (all) n_blocks = in.sizes.d_ff / 32;
  const int64_t n_bytes = device_neuron_bytes(layout_of(n_active, n_blocks)) +
                          kFloatBytes * (n_active + in.sizes.d_model) + (all ? 0 : 4 * n_active);
  cases->push_back(
      {"add_neurons",
       fmt::format("{} x {}{}", in.sizes.d_ff, in.sizes.d_model, all ? "" : ", 10 % of neurons"),
       fmt::format("{}{}", type_info(type)->name, is_transposed ? ", ffn_down_t" : ""), 1, n_bytes,
       Aligned(device_neuron_bytes(shape)), 0, [=, &in](const uint8_t* copy) {
         DeviceNeurons w = shape;
         place_device_neurons(copy, &w);
         if (w.has_planes) w.places = in.places;
         return in.ops->add_neurons(in.stream, w, list, in.x, n_active, 1, in.out, in.workspace);
       }});
}

// A tile of a matrix and one of ffn_down as a prompt's products read them.
void AddDequantize(const DeviceInputs& in, TensorType type, std::vector<DeviceCase>* cases) {
  const int64_t n_rows = 4 * in.sizes.n_prompt, n_cols = in.sizes.d_model;  // `out` has room
  const int64_t written_bytes = kHalfBytes * n_rows * n_cols;
  auto* out = reinterpret_cast<uint16_t*>(in.out);
  const std::string what = fmt::format("{} x {}", n_rows, n_cols);
  const DeviceMatrix matrix = device_layout(type, n_rows, 0, n_cols);
  cases->push_back({"dequantize", what, type_info(type)->name, 1,
                    device_matrix_bytes(matrix) + written_bytes,
                    Aligned(device_matrix_bytes(matrix)), 0, [=, &in](const uint8_t* copy) {
                      DeviceMatrix w = matrix;
                      place_device_matrix(copy, &w);
                      return in.ops->dequantize(in.stream, w, 0, n_rows, out);
                    }});
  const DeviceNeurons neurons = device_neuron_layout(type, n_rows, n_rows / 32, n_cols);
  cases->push_back({"dequantize_neurons", what, type_info(type)->name, 1,
                    device_neuron_bytes(neurons) + written_bytes,
                    Aligned(device_neuron_bytes(neurons)), 0, [=, &in](const uint8_t* copy) {
                      DeviceNeurons w = neurons;
                      place_device_neurons(copy, &w);
                      if (w.has_planes) w.places = in.places;
                      return in.ops->dequantize_neurons(in.stream, w, 0, n_rows, out);
                    }});
}

void AddAttend(const DeviceInputs& in, DeviceKvType type, size_t context,
               std::vector<DeviceCase>* cases) {
  const bool is_f16 = type == DeviceKvType::kF16;
  const int64_t n_ctx = in.sizes.contexts[context];
  const int64_t n_values = n_ctx * in.sizes.n_kv_heads * in.sizes.d_head;
  const int64_t value_bytes = Aligned(is_f16 ? 2 * n_values : n_values);
  const int64_t scale_bytes = is_f16 ? 0 : Aligned(n_values / 32 * 2);
  const int64_t cache_bytes = 2 * (value_bytes + scale_bytes);
  const float scale = 1 / std::sqrt(static_cast<float>(in.sizes.d_head));
  cases->push_back({"attend", fmt::format("context {}", n_ctx), is_f16 ? "F16" : "Q8_0", 1,
                    cache_bytes + 2 * kFloatBytes * in.sizes.n_heads * in.sizes.d_head, cache_bytes,
                    0, [=, &in](const uint8_t* copy) {
                      auto* k = const_cast<uint8_t*>(copy);  // attend only reads
                      auto* k_scale = reinterpret_cast<uint16_t*>(k + 2 * value_bytes);
                      const DeviceKv kv = {.k = k,
                                           .v = k + value_bytes,
                                           .k_scale = k_scale,
                                           .v_scale = k_scale + scale_bytes / 2,
                                           .type = type,
                                           .n_ctx = n_ctx,
                                           .n_kv_heads = in.sizes.n_kv_heads,
                                           .d_head = in.sizes.d_head};
                      return in.ops->attend(in.stream, in.x, in.last_tokens + context, 1,
                                            in.sizes.n_heads, kv, scale, 0, n_ctx - 1, in.out,
                                            nullptr, in.workspace);
                    }});
}

void AddRopeStore(const DeviceInputs& in, DeviceKvType type, int64_t n_tokens,
                  std::vector<DeviceCase>* cases) {
  const bool is_f16 = type == DeviceKvType::kF16;
  DeviceKv kv = in.prompt_kv;
  kv.type = type;
  const int64_t q_width = int64_t{in.sizes.n_heads} * in.sizes.d_head;
  const int64_t kv_width = int64_t{in.sizes.n_kv_heads} * in.sizes.d_head;
  const int64_t stored_bytes = is_f16 ? 2 * kv_width : kv_width + kv_width / 32 * 2;
  // q goes through in place; k, v, cos and sin are read; both caches are written.
  const int64_t token_bytes =
      kFloatBytes * (2 * q_width + 2 * kv_width + in.sizes.d_head) + 2 * stored_bytes;
  cases->push_back({"rope_store",
                    fmt::format("{} + 2 x {} heads of {}", in.sizes.n_heads, in.sizes.n_kv_heads,
                                in.sizes.d_head),
                    is_f16 ? "F16" : "Q8_0", n_tokens, n_tokens * token_bytes,
                    PromptStride(n_tokens, n_tokens * kFloatBytes * 2 * kv_width), 0,
                    [=, &in](const uint8_t* copy) {
                      const float* k = InputOf(in, n_tokens, copy);
                      return in.ops->rope_store(in.stream, in.out, k, k + n_tokens * kv_width, in.x,
                                                in.x, in.sizes.d_head, in.tokens, n_tokens,
                                                in.sizes.n_heads, kv);
                    }});
}

// What a step of a context longer than the cache does besides; here in device memory, without the
// link.
void AddTail(const DeviceInputs& in, std::vector<DeviceCase>* cases) {
  const int32_t n_heads = in.sizes.n_heads, d_head = in.sizes.d_head;
  const int64_t width = int64_t{n_heads} * d_head, tail_width = width + 2 * n_heads;
  cases->push_back({"copy", fmt::format("{}", width), "f32", 1, kFloatBytes * 2 * width, 0, 0,
                    [=, &in](const uint8_t*) {
                      return in.ops->copy(in.stream, in.x, width, 1, width, in.out, width);
                    }});
  cases->push_back(
      {"merge_tail", fmt::format("{} heads of {}", n_heads, d_head), "f32", 1,
       kFloatBytes * (2 * width + tail_width + 2 * n_heads), 0, 0, [=, &in](const uint8_t*) {
         return in.ops->merge_tail(in.stream, in.x, in.x, tail_width, 1, n_heads, d_head, in.out);
       }});
}

void AddNormAndQuantize(const DeviceInputs& in, int64_t n_tokens, std::vector<DeviceCase>* cases) {
  const int64_t n = in.sizes.d_model, read_bytes = n_tokens * kFloatBytes * n;
  const int64_t n_bytes = read_bytes + n_tokens * RowsBytes(n);
  const std::string what = fmt::format("{}", n);
  const int64_t stride = PromptStride(n_tokens, read_bytes);
  cases->push_back({"rms_norm", what + " to int8", "f32", n_tokens, n_bytes, stride, 0,
                    [=, &in](const uint8_t* copy) {
                      return in.ops->rms_norm(in.stream, InputOf(in, n_tokens, copy), in.x,
                                              n_tokens, n, 1e-5f, nullptr, in.int8);
                    }});
  cases->push_back(
      {"quantize", what, "f32", n_tokens, n_bytes, stride, 0, [=, &in](const uint8_t* copy) {
         return in.ops->quantize(in.stream, InputOf(in, n_tokens, copy), n, n_tokens, n, in.int8);
       }});
  auto* halves = reinterpret_cast<uint16_t*>(in.out);
  cases->push_back({"to_f16", what, "f32", n_tokens, read_bytes + n_tokens * kHalfBytes * n, stride,
                    0, [=, &in](const uint8_t* copy) {
                      return in.ops->to_f16(in.stream, InputOf(in, n_tokens, copy), n, n_tokens, n,
                                            halves, n);
                    }});
}

void AddActivations(const DeviceInputs& in, int64_t n_tokens, std::vector<DeviceCase>* cases) {
  const int64_t n = in.sizes.d_ff, half_bytes = n_tokens * kFloatBytes * n;
  DeviceRows to = in.int8;
  to.stride = n;
  const std::pair<const char*, decltype(in.ops->relu_mul)> ops[] = {
      {"relu_mul", in.ops->relu_mul},
      {"silu_mul", in.ops->silu_mul},
      {"relu_relu_mul", in.ops->relu_relu_mul}};
  for (const auto& [name, op] : ops) {
    cases->push_back(
        {name, fmt::format("{} to f32 and int8", n), "f32", n_tokens,
         3 * half_bytes + n_tokens * RowsBytes(n), PromptStride(n_tokens, 2 * half_bytes), 0,
         [=, op = op, &in](const uint8_t* copy) {
           const float* gate = InputOf(in, n_tokens, copy);
           return op(in.stream, gate, gate + n_tokens * n, n, nullptr, n_tokens, n, in.out, to);
         }});
  }
}

void AddVectorOps(const DeviceInputs& in, std::vector<DeviceCase>* cases) {
  const int64_t n = in.sizes.d_model, n_rows = in.sizes.d_ff;
  // Of a rank that is alone, in device memory: without the link and without others to wait for.
  ExchangeMemory memory;
  memory.headers = reinterpret_cast<PartialHeader*>(in.out);
  memory.arrived = reinterpret_cast<uint32_t*>(memory.headers + 2);
  memory.abort = memory.arrived + 1;
  auto* step = reinterpret_cast<DeviceStep*>(memory.headers + 3);
  memory.partials = reinterpret_cast<float*>(memory.headers + 4);
  memory.partial_stride = n;
  memory.n_ranks = 1;
  cases->push_back({"exchange", fmt::format("{}, one rank", n), "f32", 1, kFloatBytes * n * 4, 0, 0,
                    [=, &in](const uint8_t*) {
                      return in.ops->exchange(in.stream, memory, step, 0, in.x,
                                              memory.partials + 2 * n, n,
                                              const_cast<uint32_t*>(memory.abort) + 1, nullptr);
                    }});
  auto* rows = reinterpret_cast<int32_t*>(in.out);
  cases->push_back(
      {"add", fmt::format("{}", n), "f32", 1, kFloatBytes * n * 3, 0, 0,
       [=, &in](const uint8_t*) { return in.ops->add(in.stream, in.x, in.x, n, in.out); }});
  cases->push_back({"select", fmt::format("10 % of {}", n_rows), "f32", 1,
                    (kFloatBytes + 1) * n_rows + 4 * in.tenth.max, 0, 0, [=, &in](const uint8_t*) {
                      const DeviceSelection selection = {.scores = in.scores,
                                                         .stride = n_rows,
                                                         .thresholds = {0.9f, 0.9f, 0.9f},
                                                         .n_tokens = 1,
                                                         .n_rows = n_rows};
                      auto* mask = reinterpret_cast<uint8_t*>(rows + n_rows + 1);
                      return in.ops->select(in.stream, selection, rows, rows + n_rows, mask,
                                            nullptr);
                    }});
  cases->push_back({"select_bits", fmt::format("of {}", n_rows), "f32", 1,
                    kFloatBytes * n_rows + n_rows / 8, 0, 0, [=, &in](const uint8_t*) {
                      const DeviceSelection selection = {.scores = in.scores,
                                                         .stride = n_rows,
                                                         .thresholds = {0.9f, 0.9f, 0.9f},
                                                         .n_tokens = 1,
                                                         .n_rows = n_rows};
                      return in.ops->select_bits(in.stream, selection,
                                                 reinterpret_cast<uint32_t*>(rows), n_rows);
                    }});
  cases->push_back({"run_program", fmt::format("{} sums of {}", kProgramSteps, n), "f32", 1,
                    kProgramSteps * kFloatBytes * n * 3, 0, 0, [=, &in](const uint8_t*) {
                      const LaunchError error =
                          in.ops->copy(in.stream, in.barrier + 4, 4, 1, 4, in.barrier, 4);
                      if (error != 0) return error;
                      return in.ops->run_program(in.stream, in.program, in.steps,
                                                 reinterpret_cast<uint32_t*>(in.barrier));
                    }});
  cases->push_back({"stamp", "the time", "i64", 1, 8, 0, 0, [=, &in](const uint8_t*) {
                      return in.ops->stamp(in.stream, reinterpret_cast<int64_t*>(in.out));
                    }});
  cases->push_back({"top_k", fmt::format("{} of {}", kTopK, in.sizes.n_vocab), "f32", 1,
                    kFloatBytes * in.sizes.n_vocab, 0, 0, [=, &in](const uint8_t* copy) {
                      return in.ops->top_k(in.stream, reinterpret_cast<const float*>(copy),
                                           in.sizes.n_vocab, kTopK, /*first=*/0, in.out,
                                           rows + kTopK, in.out + 2 * kTopK, in.workspace);
                    }});
}

}  // namespace

std::vector<DeviceCase> MakeDeviceCases(const DeviceInputs& in) {
  const DeviceSizes& sizes = in.sizes;
  std::vector<DeviceCase> cases;
  for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0, TensorType::kQ4_0,
                                TensorType::kQ4_K, TensorType::kQ6_K}) {
    for (const int64_t n_tokens : {int64_t{1}, kBatch}) {
      for (const int64_t n_rows : {sizes.d_ff, sizes.d_model, sizes.n_vocab}) {
        AddMatmul(in, type, n_rows, n_tokens, false, &cases);
      }
    }
    AddMatmul(in, type, sizes.d_ff, 1, true, &cases);
    AddDequantize(in, type, &cases);
  }
  for (const bool all : {false, true}) {
    for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0, TensorType::kQ4_0}) {
      AddNeurons(in, type, true, all, &cases);
    }
    for (const TensorType type :
         {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_K, TensorType::kQ6_K}) {
      AddNeurons(in, type, false, all, &cases);
    }
  }
  for (const DeviceKvType type : {DeviceKvType::kF16, DeviceKvType::kQ8_0}) {
    for (size_t i = 0; i < sizes.contexts.size(); ++i) AddAttend(in, type, i, &cases);
    for (const int64_t n_tokens : {int64_t{1}, sizes.n_prompt}) {
      AddRopeStore(in, type, n_tokens, &cases);
    }
  }
  for (const int64_t n_tokens : {int64_t{1}, sizes.n_prompt}) {
    AddNormAndQuantize(in, n_tokens, &cases);
    AddActivations(in, n_tokens, &cases);
  }
  AddTail(in, &cases);
  AddVectorOps(in, &cases);
  return cases;
}

}  // namespace thermocline::kernels
