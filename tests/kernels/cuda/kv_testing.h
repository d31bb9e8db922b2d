// A KV cache on the host for tests: rounded by the reference ops, uploaded as a device's ops take
// it. What nobody stored is NaN.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/gguf/half.h"
#include "kernels/cuda/device_ops.h"
#include "kernels/ops.h"
#include "tests/kernels/cuda/device_testing.h"

namespace thermocline::kernels::testing {

// The heads and the cache of one layer.
struct KvShape {
  DeviceKvType type = DeviceKvType::kF16;
  int64_t n_slots = 1, n_ctx = 1;
  int32_t n_heads = 1, n_kv_heads = 1, d_head = 32;

  int64_t n_rows() const { return n_slots * n_ctx * n_kv_heads; }
  int64_t d_row() const { return device_kv_row(d_head); }
};

inline std::string Name(const KvShape& shape) {
  return std::string(shape.type == DeviceKvType::kF16 ? "f16" : "q8_0") + ", " +
         std::to_string(shape.n_heads) + " / " + std::to_string(shape.n_kv_heads) + " heads of " +
         std::to_string(shape.d_head);
}

// Tokens of one slot at positions [begin, end).
inline std::vector<DeviceToken> Prompt(int32_t slot, int32_t begin, int32_t end) {
  std::vector<DeviceToken> tokens;
  for (int32_t position = begin; position < end; ++position) tokens.push_back({slot, position});
  return tokens;
}

// K's planes, or v's.
class KvPlane {
 public:
  explicit KvPlane(const KvShape& shape)
      : shape_(shape),
        values(static_cast<size_t>(shape.n_rows() * shape.d_row() * element_bytes()), 0xff),
        scales(static_cast<size_t>(shape.n_rows() * shape.d_row() / 32), 0xffff) {}

  int64_t Row(const DeviceToken& token, int32_t head) const {
    return (token.slot * shape_.n_ctx + token.position) * shape_.n_kv_heads + head;
  }
  // x [d_head]
  void Store(const DeviceToken& token, int32_t head, const float* x) {
    const int64_t at = Row(token, head) * shape_.d_row();
    const Ops& reference = ops(Isa::kReference);
    std::vector<float> row(x, x + shape_.d_head);
    row.resize(static_cast<size_t>(shape_.d_row()), 0.0f);
    if (shape_.type == DeviceKvType::kF16) {
      reference.f32_to_f16(row.data(), shape_.d_row(),
                           reinterpret_cast<uint16_t*>(values.data()) + at);
      return;
    }
    for (int64_t i = 0; i < shape_.d_row(); i += 32) {
      float scale;
      int32_t sum;
      reference.quantize(row.data() + i, 32, reinterpret_cast<int8_t*>(values.data()) + at + i,
                         &scale, &sum);
      scales[static_cast<size_t>((at + i) / 32)] = f32_to_f16(scale);
    }
  }
  // As the cache holds it.
  double Value(const DeviceToken& token, int32_t head, int64_t dim) const {
    const auto at = static_cast<size_t>(Row(token, head) * shape_.d_row() + dim);
    if (shape_.type == DeviceKvType::kF16) {
      return f16_to_f32(reinterpret_cast<const uint16_t*>(values.data())[at]);
    }
    return double{f16_to_f32(scales[at / 32])} * static_cast<int8_t>(values[at]);
  }

 private:
  int64_t element_bytes() const { return shape_.type == DeviceKvType::kF16 ? 2 : 1; }

  KvShape shape_;

 public:
  std::vector<uint8_t> values;   // [n_rows, d_row] of the type
  std::vector<uint16_t> scales;  // [n_rows, d_row / 32], of kQ8_0
};

inline DeviceKv Upload(TestDevice* device, const KvShape& shape, const KvPlane& k,
                       const KvPlane& v) {
  DeviceKv kv = {device->Upload(k.values), device->Upload(v.values)};
  if (shape.type == DeviceKvType::kQ8_0) {
    kv.k_scale = device->Upload(k.scales);
    kv.v_scale = device->Upload(v.scales);
  }
  kv.type = shape.type;
  kv.n_ctx = shape.n_ctx;
  kv.n_kv_heads = shape.n_kv_heads;
  kv.d_head = shape.d_head;
  return kv;
}

}  // namespace thermocline::kernels::testing
