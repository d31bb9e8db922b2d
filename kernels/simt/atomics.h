// CUDA's atomic operations and fences, and the ordered reads and writes of on_device.h. They are
// atomic for the host's threads, too.
#pragma once

// Each returns the value before.
int atomicAdd(int* address, int value);
unsigned atomicAdd(unsigned* address, unsigned value);
unsigned long long atomicAdd(unsigned long long* address, unsigned long long value);
float atomicAdd(float* address, float value);
int atomicMax(int* address, int value);
unsigned atomicMax(unsigned* address, unsigned value);
unsigned long long atomicMax(unsigned long long* address, unsigned long long value);
int atomicMin(int* address, int value);
unsigned atomicMin(unsigned* address, unsigned value);
unsigned long long atomicMin(unsigned long long* address, unsigned long long value);
unsigned atomicAnd(unsigned* address, unsigned value);
unsigned atomicOr(unsigned* address, unsigned value);
int atomicExch(int* address, int value);
unsigned atomicExch(unsigned* address, unsigned value);
unsigned long long atomicExch(unsigned long long* address, unsigned long long value);
float atomicExch(float* address, float value);
int atomicCAS(int* address, int expected, int value);
unsigned atomicCAS(unsigned* address, unsigned expected, unsigned value);
unsigned long long atomicCAS(unsigned long long* address, unsigned long long expected,
                             unsigned long long value);

void __threadfence_block();
void __threadfence();
void __threadfence_system();

namespace thermocline::kernels::simt {

unsigned load_acquire(const unsigned* address);
void store_release(unsigned* address, unsigned value);

}  // namespace thermocline::kernels::simt
