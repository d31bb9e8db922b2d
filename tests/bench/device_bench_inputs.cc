// Fills inputs on the host and sends them.
#include "tests/bench/device_bench_inputs.h"

#include <algorithm>
#include <random>

#include "common/util/status_macros.h"

namespace thermocline::kernels {
namespace {

template <typename T>
absl::Status Allocate(Device* device, int64_t n, T** memory) {
  ASSIGN_OR_RETURN(uint8_t* const bytes, device->Allocate(n * static_cast<int64_t>(sizeof(T))));
  *memory = reinterpret_cast<T*>(bytes);
  return absl::OkStatus();
}

template <typename T>
absl::Status Upload(Device* device, const std::vector<T>& values, T** memory) {
  RETURN_IF_ERROR(Allocate(device, static_cast<int64_t>(values.size()), memory));
  RETURN_IF_ERROR(
      device->Upload(*memory, values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  return device->Synchronize();
}

absl::Status MakeActivations(Device* device, DeviceInputs* in) {
  const DeviceSizes& s = in->sizes;
  const int64_t width = std::max(s.d_ff, int64_t{s.n_heads} * s.d_head);
  // A token's gate and up, or k and v, are read one after the other.
  const int64_t n_tokens = std::max<int64_t>(s.n_prompt, 4);
  RETURN_IF_ERROR(Upload(device, std::vector<float>(n_tokens * width, 0.5f), &in->x));
  const int64_t n = s.n_prompt * s.d_ff;
  RETURN_IF_ERROR(Upload(device, std::vector<int8_t>(n, 3), &in->int8.q));
  RETURN_IF_ERROR(Upload(device, std::vector<float>(n / 32, 0.01f), &in->int8.scale));
  RETURN_IF_ERROR(Upload(device, std::vector<int32_t>(n / 32, 96), &in->int8.sum));
  in->int8.stride = s.d_model;
  const int64_t n_out = std::max(n_tokens * width, kBatch * s.n_vocab);
  RETURN_IF_ERROR(Upload(device, std::vector<float>(n_out, 0.0f), &in->out));
  const int64_t last = *std::max_element(s.contexts.begin(), s.contexts.end()) - 1;
  const int64_t n_bytes = std::max({add_neurons_bytes(s.d_ff, s.d_model, 1), top_k_bytes(),
                                    attend_bytes(1, s.n_heads, s.d_head, last)});
  return Allocate(device, n_bytes, &in->workspace);
}

absl::Status MakeLists(Device* device, DeviceInputs* in) {
  const int64_t n = in->sizes.d_ff;
  std::mt19937 random(2);
  std::vector<float> scores(n);
  std::vector<int32_t> places(n);
  for (int32_t i = 0; i < n; ++i) {
    places[i] = i;
    scores[i] = static_cast<float>(random() % 1000 + 1) / 1000;
    if (scores[i] > 0.9f) in->tenth_rows.push_back(i);
  }
  int32_t *rows = nullptr, *n_rows = nullptr;
  RETURN_IF_ERROR(Upload(device, scores, &in->scores));
  RETURN_IF_ERROR(Upload(device, places, &in->places));
  RETURN_IF_ERROR(Upload(device, in->tenth_rows, &rows));
  const auto n_tenth = static_cast<int32_t>(in->tenth_rows.size());
  RETURN_IF_ERROR(Upload(device, std::vector<int32_t>{n_tenth}, &n_rows));
  in->tenth = {rows, n_rows, n_tenth};
  return absl::OkStatus();
}

absl::Status MakeTokens(Device* device, DeviceInputs* in) {
  const DeviceSizes& s = in->sizes;
  std::vector<DeviceToken> tokens(s.n_prompt), last_tokens;
  for (int32_t i = 0; i < s.n_prompt; ++i) tokens[i] = {0, i};
  for (const int64_t n_ctx : s.contexts)
    last_tokens.push_back({0, static_cast<int32_t>(n_ctx - 1)});
  RETURN_IF_ERROR(Upload(device, tokens, &in->tokens));
  RETURN_IF_ERROR(Upload(device, last_tokens, &in->last_tokens));
  const int64_t n = s.n_prompt * s.n_kv_heads * s.d_head;
  uint16_t *k = nullptr, *v = nullptr;
  RETURN_IF_ERROR(Allocate(device, n, &k));
  RETURN_IF_ERROR(Allocate(device, n, &v));
  RETURN_IF_ERROR(Allocate(device, n / 32, &in->prompt_kv.k_scale));
  RETURN_IF_ERROR(Allocate(device, n / 32, &in->prompt_kv.v_scale));
  in->prompt_kv.k = k;
  in->prompt_kv.v = v;
  in->prompt_kv.n_ctx = s.n_prompt;
  in->prompt_kv.n_kv_heads = s.n_kv_heads;
  in->prompt_kv.d_head = s.d_head;
  return absl::OkStatus();
}

absl::Status MakeProgram(Device* device, DeviceInputs* in) {
  std::vector<ProgramStep> steps(kProgramSteps);
  in->program = {.steps = steps.data(), .max_steps = kProgramSteps};
  in->stream->program = &in->program;
  LaunchError error = 0;
  for (int64_t i = 0; i < kProgramSteps && error == 0; ++i) {
    error = in->ops->add(in->stream, in->x, in->x, in->sizes.d_model, in->out);
  }
  in->stream->program = nullptr;
  RETURN_IF_ERROR(device->Check(error, "add"));
  RETURN_IF_ERROR(Upload(device, std::vector<float>(8, 0.0f), &in->barrier));
  RETURN_IF_ERROR(Upload(device, steps, &in->steps));
  in->program.steps = nullptr;
  return absl::OkStatus();
}

}  // namespace

DeviceSizes SizesOf7b() {
  return {.d_model = 4096,
          .d_ff = 11008,
          .n_vocab = 32000,
          .n_heads = 32,
          .n_kv_heads = 32,
          .d_head = 128,
          .n_prompt = 512,
          .contexts = {512, 4096, 32768},
          .copies_bytes = int64_t{1} << 30};
}

DeviceSizes SmallSizes() {
  return {.d_model = 256,
          .d_ff = 512,
          .n_vocab = 1024,
          .n_heads = 4,
          .n_kv_heads = 2,
          .d_head = 64,
          .n_prompt = 8,
          .contexts = {32, 256, 600},
          .copies_bytes = int64_t{1} << 20};
}

absl::StatusOr<std::unique_ptr<DeviceInputs>> MakeDeviceInputs(Device* device,
                                                               const DeviceSizes& sizes) {
  auto inputs = std::make_unique<DeviceInputs>();
  inputs->sizes = sizes;
  inputs->ops = &device->ops();
  inputs->stream = device->stream();
  RETURN_IF_ERROR(MakeActivations(device, inputs.get()));
  RETURN_IF_ERROR(MakeLists(device, inputs.get()));
  RETURN_IF_ERROR(MakeTokens(device, inputs.get()));
  RETURN_IF_ERROR(MakeProgram(device, inputs.get()));
  return inputs;
}

}  // namespace thermocline::kernels
