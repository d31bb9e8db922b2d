// What a kernel source includes: CUDA's own headers under nvcc, else the SIMT layer, which gives
// the same source its meaning on the host. No launching (launch.h) and nothing of the runtime's
// inside.
//
// The SIMT layer runs kernels for the `emulated` device and in tests, on machines without a GPU.
// The threads of a block are fibers on one host thread, the blocks of a grid run one after another
// (a cooperative grid's take turns). It finds what a CPU would hide: a barrier or shuffle that not
// all threads reach, a shuffle from a lane that has exited, blocks or lanes that wait forever,
// memory out of bounds (in builds with AddressSanitizer) and, where the kernels are compiled for
// it, races between barriers (race.cc). Such a bug becomes the stream's error (stream.h).
//
// A kernel is compiled for the host as C++ by thermocline_emulated_kernels (CMakeLists.txt), with
// the flags of the AVX2 level: fma and half conversions are instructions, and a machine without
// that level (ops.h: isa_supported) cannot run it. Such a file includes no STL, as those of
// kernels/cpu. The language is CUDA's but for these rules:
//   - its code lies in namespace thermocline::kernels::SIMT_DEVICE, so that both compilations of a
//     source fit into one program: it is `cuda` under nvcc, `emulated` here.
//   - `__shared__` is written SHARED(name, type): SHARED(tile, float[32][33]); then tile[y][x].
//     `extern __shared__` is DYNAMIC_SHARED(name, type): a pointer to the bytes of the launch, on a
//     16-byte boundary. On the host they are memory of the block's own with red zones, and full of
//     0xff at the start: a kernel that takes shared memory for zeros meets NaNs.
//   - A loop that waits for memory to change calls simt::yield() each time round, and reads the
//     memory with simt::load_acquire or an atomic operation.
//   - Every thread of a block reaches the same __syncthreads() as often as the others: a thread
//     that has exited before is an error here, though a GPU forgives it.
//   - A shuffle's mask names no lane that has exited. Votes and __syncwarp pass such lanes over, as
//     a GPU does.
//   - Only operations with defined results are there: no __expf and the like, no rsqrtf, no
//     arithmetic on halves (compute in f32), no __activemask, no textures, no inline assembly.
#pragma once

#ifdef __CUDACC__
#include "kernels/simt/on_device.h"
#else
#include "kernels/simt/on_host.h"
#endif
