// Atomic operations of kernels, on the host's own. They order more than CUDA's relaxed ones; the
// observer is told what CUDA's would.
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
  T before = atomic.load();
  while (!atomic.compare_exchange_weak(before, function(before))) {
  }
  return before;
}

template <typename T>
T add(T* address, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  return std::atomic_ref<T>(*address).fetch_add(value);
}

template <typename T>
T exchange(T* address, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  return std::atomic_ref<T>(*address).exchange(value);
}

template <typename T>
T compare_exchange(T* address, T expected, T value) {
  note(address, sizeof(T), AtomicAccess::kUpdate);
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value);
  return expected;
}

// A read-modify-write is a full fence on x86-64; ThreadSanitizer knows no others.
void full_fence() {
  static thread_local std::atomic<int> word;
  word.exchange(0);
}

void device_fence() {
  full_fence();
  if (observer() != nullptr) observer()->fence(running_thread());
}

}  // namespace

unsigned load_acquire(const unsigned* address) {
  note(address, sizeof(*address), AtomicAccess::kLoadAcquire);
  return std::atomic_ref<unsigned>(*const_cast<unsigned*>(address)).load();
}
void store_release(unsigned* address, unsigned value) {
  note(address, sizeof(*address), AtomicAccess::kStoreRelease);
  std::atomic_ref<unsigned>(*address).store(value);
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

void __threadfence_block() { simt::full_fence(); }
void __threadfence() { simt::device_fence(); }
void __threadfence_system() { simt::device_fence(); }
