// The operations by name, for the table (table.cu); device_ops.h says what each does.
#pragma once

#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError quantize(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                     int64_t n, const DeviceRows& out);
LaunchError rms_norm(DeviceStream* stream, const float* x, const float* weight, int64_t n_tokens,
                     int64_t n, float eps, float* out, const DeviceRows& quantized);
LaunchError matmul(DeviceStream* stream, const DeviceMatrix& w, const RowList& list,
                   const DeviceRows& x, const float* x_f32, int64_t x_stride, int64_t n_tokens,
                   float* out, int64_t out_stride);
LaunchError relu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                     const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                     const DeviceRows& quantized);
LaunchError silu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                     const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                     const DeviceRows& quantized);
LaunchError relu_relu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                          const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                          const DeviceRows& quantized);
LaunchError add(DeviceStream* stream, const float* a, const float* b, int64_t n, float* out);
LaunchError exchange(DeviceStream* stream, const ExchangeMemory& memory, const DeviceStep* step,
                     uint32_t number, const float* partial, float* h, int64_t n, uint32_t* state,
                     int64_t* times);
LaunchError select(DeviceStream* stream, const DeviceSelection& selection, int32_t* rows,
                   int32_t* n, uint8_t* mask, uint64_t* counts);
LaunchError select_bits(DeviceStream* stream, const DeviceSelection& selection, uint32_t* bits,
                        int64_t stride);
LaunchError add_neurons(DeviceStream* stream, const DeviceNeurons& w, const RowList& list,
                        const float* a, int64_t a_stride, int64_t n_tokens, float* out,
                        void* workspace);
LaunchError dequantize(DeviceStream* stream, const DeviceMatrix& w, int64_t begin, int64_t end,
                       uint16_t* out);
LaunchError dequantize_neurons(DeviceStream* stream, const DeviceNeurons& w, int64_t begin,
                               int64_t end, uint16_t* out);
LaunchError to_f16(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                   int64_t n, uint16_t* out, int64_t out_stride);
LaunchError rope_store(DeviceStream* stream, float* q, const float* k, const float* v,
                       const float* cos, const float* sin, int64_t n_rot, const DeviceToken* tokens,
                       int64_t n_tokens, int32_t n_heads, const DeviceKv& kv);
LaunchError attend(DeviceStream* stream, const float* q, const DeviceToken* tokens,
                   int64_t n_tokens, int32_t n_heads, const DeviceKv& kv, float scale,
                   int64_t window, int64_t max_position, float* out, float* state, void* workspace);
LaunchError merge_tail(DeviceStream* stream, const float* state, const float* tail,
                       int64_t tail_stride, int64_t n_tokens, int32_t n_heads, int32_t d_head,
                       float* out);
LaunchError copy(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                 int64_t n, float* out, int64_t out_stride);
LaunchError stamp(DeviceStream* stream, int64_t* ns);
LaunchError run_program(DeviceStream* stream, const DeviceProgram& program,
                        const ProgramStep* steps, uint32_t* barrier);
LaunchError top_k(DeviceStream* stream, const float* logits, int64_t n, int32_t k, int32_t first,
                  float* values, int32_t* indices, float* log_sum, void* workspace);

}  // namespace thermocline::kernels::SIMT_DEVICE
