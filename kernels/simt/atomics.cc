// Atomic operations of kernels, on the host's own. Relaxed, as CUDA's are: fences order.
#include "kernels/simt/atomics.h"

#include <atomic>

#include "kernels/simt/block.h"
#include "kernels/simt/intrinsics.h"

namespace thermocline::kernels::simt {
namespace {

Observer* observer() {
  return current_thread == nullptr ? nullptr : running_thread()->owner->observer();
}

void note(const void* address, size_t n_bytes, AtomicAccess access) {
  if (observer() != nullptr) observer()->atomic(running_thread(), address, n_bytes, access);
}

// Replaces the value by function(value).
template <typename T, typename Function>
T update(T* address, Function function) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  std::atomic_ref<T> atomic(*address);
  T before = atomic.load(std::memory_order_relaxed);
  while (!atomic.compare_exchange_weak(before, function(before), std::memory_order_relaxed)) {
  }
  return before;
}

template <typename T>
T add(T* address, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}

template <typename T>
T exchange(T* address, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  return std::atomic_ref<T>(*address).exchange(value, std::memory_order_relaxed);
}

template <typename T>
T compare_exchange(T* address, T expected, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}

void device_fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (observer() != nullptr) observer()->fence(running_thread());
}

}  // namespace

unsigned load_acquire(const unsigned* address) {
  note(address, sizeof(*address), AtomicAccess::kLoadAcquire);
  return std::atomic_ref<unsigned>(*const_cast<unsigned*>(address)).load(std::memory_order_acquire);
}
void store_release(unsigned* address, unsigned value) {
  note(address, sizeof(*address), AtomicAccess::kStoreRelease);
  std::atomic_ref<unsigned>(*address).store(value, std::memory_order_release);
}

}  // namespace thermocline::kernels::simt

namespace simt = thermocline::kernels::simt;

#define SIMT_INTEGER_ATOMICS(T)                                                     \
  T atomicAdd(T* address, T value) { return simt::add(address, value); }            \
  T atomicMax(T* address, T value) {                                                \
    return simt::update(address, [value](T before) { return max(before, value); }); \
  }                                                                                 \
  T atomicMin(T* address, T value) {                                                \
    return simt::update(address, [value](T before) { return min(before, value); }); \
  }                                                                                 \
  T atomicExch(T* address, T value) { return simt::exchange(address, value); }      \
  T atomicCAS(T* address, T expected, T value) {                                    \
    return simt::compare_exchange(address, expected, value);                        \
  }
SIMT_INTEGER_ATOMICS(int)
SIMT_INTEGER_ATOMICS(unsigned)
SIMT_INTEGER_ATOMICS(unsigned long long)
#undef SIMT_INTEGER_ATOMICS

float atomicAdd(float* address, float value) {
  return simt::update(address, [value](float before) { return before + value; });
}
float atomicExch(float* address, float value) { return simt::exchange(address, value); }
unsigned atomicAnd(unsigned* address, unsigned value) {
  return simt::update(address, [value](unsigned before) { return before & value; });
}
unsigned atomicOr(unsigned* address, unsigned value) {
  return simt::update(address, [value](unsigned before) { return before | value; });
}

void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
void __threadfence() { simt::device_fence(); }
void __threadfence_system() { simt::device_fence(); }
