// Finds pairs of accesses to one byte, by two threads of a launch, one of them writing, with
// nothing that orders them: a missing __syncthreads, __syncwarp or fence. Linked only where kernels
// are compiled for it (thermocline_emulated_kernels, CHECK_RACES). Blind to different launches, to
// the host's threads, and to memory on the threads' stacks.
//
// The kernels are compiled with -fsanitize=thread, which calls __tsan_read4 and the like before
// each access; the definitions at the end of this file take the place of the sanitizer's own
// library.
//
// What orders accesses, as CUDA has it: __syncthreads those of a block, __syncwarp those of the
// lanes in its mask (a shuffle or vote orders nothing); between any threads a __threadfence before
// an atomic operation there and one after an atomic operation here, or store_release and
// load_acquire. For each byte the last write and two reads since are kept, as in FastTrack
// (Flanagan, Freund, PLDI 2009); a third read at the same time goes unseen.
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/observer.h"

namespace thermocline::kernels::simt {
namespace {

constexpr uint32_t kWholeBlock = 1024;  // in place of a thread's number
constexpr size_t kPageBytes = 4096;

// Who accesses, and when: the counts of what its thread has been through.
struct Stamp {
  uint32_t block;  // in the order in which they began
  uint32_t thread;
  uint32_t n_barriers;   // of the block
  uint32_t n_syncwarps;  // of the lane
  uint32_t n_releases;   // of the thread
};

// What a thread knows to have happened elsewhere. Of block b: all accesses of threads that had been
// through fewer barriers than [b, kWholeBlock]; of its thread t: those before its release [b, t].
class Knowledge {
 public:
  void learn(uint32_t block, uint32_t thread, uint32_t count) {
    uint32_t& known = counts_[key(block, thread)];
    known = std::max(known, count);
  }
  void learn(const Knowledge& other) {
    for (const auto& [key, count] : other.counts_) {
      uint32_t& known = counts_[key];
      known = std::max(known, count);
    }
  }
  bool covers(const Stamp& stamp) const {
    return count(stamp.block, kWholeBlock) > stamp.n_barriers ||
           count(stamp.block, stamp.thread) > stamp.n_releases;
  }
  bool empty() const { return counts_.empty(); }
  void clear() { counts_.clear(); }

 private:
  static uint64_t key(uint32_t block, uint32_t thread) { return uint64_t{block} << 32 | thread; }
  uint32_t count(uint32_t block, uint32_t thread) const {
    const auto found = counts_.find(key(block, thread));
    return found == counts_.end() ? 0 : found->second;
  }
  std::unordered_map<uint64_t, uint32_t> counts_;
};

struct ThreadHistory {
  uint32_t stamp = 0;  // its number while nothing has changed; 0: a new one is due
  uint32_t n_releases = 0;
  std::array<uint32_t, 32> n_syncwarps =
      {};  // its own, and what it knows of its warp's other lanes
  Knowledge known;
  Knowledge seen;      // by atomic operations: known after the next fence
  Knowledge released;  // by the last fence: what its atomic operations pass on
};

struct BlockHistory {
  uint32_t number = 0;
  uint32_t n_barriers = 0;
  Knowledge known;  // by all its threads
  std::vector<ThreadHistory> threads;
};

// Accesses are numbers of stamps, times 2, plus 1 if atomic; 0 is none.
struct Cell {
  uint32_t write = 0;
  uint32_t reads[2] = {};
};
using Page = std::array<Cell, kPageBytes>;

class RaceChecker final : public Observer {
 public:
  void launch_begins() override;
  void block_begins(const Block& block) override;
  void block_ends(const Block& block) override;
  void block_met(const Block& block) override;
  void lanes_met(const Block& block, int warp, uint32_t lanes) override;
  void fence(Thread* thread) override;
  void atomic(Thread* thread, const void* address, size_t n_bytes, AtomicAccess access) override;

  // `place`: the address in the code.
  void access(Thread* thread, const void* address, size_t n_bytes, bool writes, bool is_atomic,
              void* place);

 private:
  // The thread that runs, as the checks need it.
  struct Self {
    BlockHistory* block;
    ThreadHistory* thread;
    uint32_t number;
    uint32_t access;
  };
  Self self(const Thread& thread, bool is_atomic);
  bool ordered(uint32_t access, const Self& self) const;
  bool excluded(uint32_t access, const Self& self) const;
  Knowledge release(const Self& self);
  Cell* cell(uintptr_t address);
  void note_read(Cell* cell, const Self& self) const;
  void report(const Thread& thread, uintptr_t address, bool writes, uint32_t other,
              bool other_writes, void* place);

  std::unordered_map<const Block*, BlockHistory> blocks_;
  std::vector<uint3> block_indices_;                    // by number
  std::vector<Stamp> stamps_;                           // the first is nobody's
  std::unordered_map<uintptr_t, Knowledge> passed_on_;  // by address of an atomic variable
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_number_ = 0;
  Page* last_page_ = nullptr;
};

void RaceChecker::launch_begins() {
  blocks_.clear();
  block_indices_.clear();
  stamps_.assign(1, Stamp{});
  passed_on_.clear();
  pages_.clear();
  last_page_ = nullptr;
}

void RaceChecker::block_begins(const Block& block) {
  BlockHistory& history = blocks_[&block];
  history = {};
  history.number = static_cast<uint32_t>(block_indices_.size());
  history.threads.resize(block.threads().size());
  block_indices_.push_back(block.view().block_index);
}

// Another block's memory may come to lie where this one's did.
void RaceChecker::block_ends(const Block& block) {
  for (const SharedMemory& memory : block.shared_memory()) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory.bytes.get());
    for (size_t i = 0; i < memory.n_bytes; ++i) {
      *cell(begin + i) = {};
      passed_on_.erase(begin + i);
    }
  }
}

void RaceChecker::block_met(const Block& block) {
  BlockHistory& history = blocks_[&block];
  ++history.n_barriers;
  for (ThreadHistory& thread : history.threads) {
    history.known.learn(thread.known);
    thread.known.clear();
    thread.stamp = 0;
  }
}

void RaceChecker::lanes_met(const Block& block, int warp, uint32_t lanes) {
  ThreadHistory* threads = &blocks_[&block].threads[32 * warp];
  std::array<uint32_t, 32> n_syncwarps = {};
  Knowledge known;
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    ++threads[lane].n_syncwarps[lane];
    for (int i = 0; i < 32; ++i) {
      n_syncwarps[i] = std::max(n_syncwarps[i], threads[lane].n_syncwarps[i]);
    }
    known.learn(threads[lane].known);
  }
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    ThreadHistory& thread = threads[std::countr_zero(left)];
    thread.n_syncwarps = n_syncwarps;
    thread.known = known;
    thread.stamp = 0;
  }
}

RaceChecker::Self RaceChecker::self(const Thread& thread, bool is_atomic) {
  BlockHistory& block = blocks_[thread.owner];
  const uint32_t number = static_cast<uint32_t>(thread.number);
  ThreadHistory& history = block.threads[number];
  if (history.stamp == 0) {
    history.stamp = static_cast<uint32_t>(stamps_.size());
    stamps_.push_back({block.number, number, block.n_barriers, history.n_syncwarps[number % 32],
                       history.n_releases});
  }
  return {&block, &history, number, 2 * history.stamp + is_atomic};
}

// All that the thread has done and knows, for others to learn.
Knowledge RaceChecker::release(const Self& self) {
  Knowledge released = self.block->known;
  released.learn(self.thread->known);
  released.learn(self.block->number, kWholeBlock, self.block->n_barriers);
  released.learn(self.block->number, self.number, ++self.thread->n_releases);
  self.thread->stamp = 0;
  return released;
}

void RaceChecker::fence(Thread* thread) {
  const Self me = self(*thread, true);
  me.thread->known.learn(me.thread->seen);
  me.thread->released = release(me);
}

void RaceChecker::atomic(Thread* thread, const void* address, size_t n_bytes,
                         AtomicAccess access_kind) {
  access(thread, address, n_bytes, access_kind != AtomicAccess::kLoadAcquire, true,
         __builtin_return_address(0));
  const Self me = self(*thread, true);
  Knowledge& passed_on = passed_on_[reinterpret_cast<uintptr_t>(address)];
  if (access_kind == AtomicAccess::kLoadAcquire) {
    me.thread->known.learn(passed_on);
  } else if (access_kind == AtomicAccess::kStoreRelease) {
    passed_on = release(me);
  } else {
    me.thread->seen.learn(passed_on);
    passed_on.learn(me.thread->released);
  }
}

bool RaceChecker::ordered(uint32_t access, const Self& self) const {
  const Stamp& stamp = stamps_[access / 2];
  if (stamp.block == self.block->number) {
    if (stamp.thread == self.number || stamp.n_barriers < self.block->n_barriers) return true;
    if (stamp.thread / 32 == self.number / 32 &&
        self.thread->n_syncwarps[stamp.thread % 32] > stamp.n_syncwarps) {
      return true;
    }
  }
  return self.block->known.covers(stamp) || self.thread->known.covers(stamp);
}

// Whether the two are no race: there is no other, both are atomic, or it comes before.
bool RaceChecker::excluded(uint32_t access, const Self& self) const {
  return access == 0 || access / 2 == self.access / 2 || (access & self.access & 1) != 0 ||
         ordered(access, self);
}

Cell* RaceChecker::cell(uintptr_t address) {
  const uintptr_t number = address / kPageBytes;
  if (last_page_ == nullptr || number != last_page_number_) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    last_page_ = page.get();
    last_page_number_ = number;
  }
  return &(*last_page_)[address % kPageBytes];
}

void RaceChecker::access(Thread* thread, const void* address, size_t n_bytes, bool writes,
                         bool is_atomic, void* place) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  const uintptr_t stack = reinterpret_cast<uintptr_t>(thread->fiber->low);
  if (begin - stack < thread->fiber->n_bytes) return;
  const Self me = self(*thread, is_atomic);
  for (uintptr_t at = begin; at < begin + n_bytes; ++at) {
    Cell* const cell = this->cell(at);
    if (!excluded(cell->write, me)) {
      report(*thread, at, writes, cell->write, true, place);
      return;
    }
    if (!writes) {
      note_read(cell, me);
      continue;
    }
    for (uint32_t& read : cell->reads) {
      if (!excluded(read, me)) {
        report(*thread, at, true, read, false, place);
        return;
      }
      read = 0;
    }
    cell->write = me.access;
  }
}

// Takes the place of a read that comes before: what is ordered after this one is so after that.
// Else a free place, else that of one of two reads by the same warp, which one __syncwarp would
// order.
void RaceChecker::note_read(Cell* cell, const Self& self) const {
  for (uint32_t& read : cell->reads) {
    if (read != 0 && (read == self.access || ordered(read, self))) {
      read = self.access;
      return;
    }
  }
  for (uint32_t& read : cell->reads) {
    if (read == 0) {
      read = self.access;
      return;
    }
  }
  const Stamp &first = stamps_[cell->reads[0] / 2], &second = stamps_[cell->reads[1] / 2];
  if (first.block == second.block && first.thread / 32 == second.thread / 32) {
    cell->reads[1] = self.access;
  }
}

std::string name_memory(const Block& block, uintptr_t address) {
  for (const SharedMemory& memory : block.shared_memory()) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory.bytes.get());
    if (address - begin >= memory.n_bytes) continue;
    return fmt::format("byte {} of shared {}", address - begin,
                       memory.variable == nullptr ? "memory of the launch" : memory.variable->name);
  }
  return fmt::format("address {:#x} of device memory", address);
}

// A command that prints the line of source.
std::string name_code(void* place) {
  Dl_info info;
  if (dladdr(place, &info) == 0) return "unknown code";
  const uintptr_t offset =
      reinterpret_cast<uintptr_t>(place) - reinterpret_cast<uintptr_t>(info.dli_fbase);
  return fmt::format("addr2line -Cfie {} {:#x}", info.dli_fname, offset - 1);
}

void RaceChecker::report(const Thread& thread, uintptr_t address, bool writes, uint32_t other,
                         bool other_writes, void* place) {
  const Stamp& stamp = stamps_[other / 2];
  const uint3 block = block_indices_[stamp.block];
  const dim3 size = thread.block->block_size;
  thread.owner->fail(
      ErrorCode::kRace,
      fmt::format("race on {}: {} {} it ({}), and thread ({}, {}, {}) of block ({}, {}, {}) {} it "
                  "with no barrier, __syncwarp or fence between",
                  name_memory(*thread.owner, address), thread.owner->name(thread),
                  writes ? "writes" : "reads", name_code(place), stamp.thread % size.x,
                  stamp.thread / size.x % size.y, stamp.thread / size.x / size.y, block.x, block.y,
                  block.z, other_writes ? "wrote" : "read"));
}

void access(const void* address, size_t n_bytes, bool writes, void* place) {
  Thread* thread = running_thread();
  if (thread == nullptr) return;
  static_cast<RaceChecker*>(thread->owner->observer())
      ->access(thread, address, n_bytes, writes, false, place);
}

[[maybe_unused]] const bool is_installed = [] {
  make_observer = []() -> std::unique_ptr<Observer> { return std::make_unique<RaceChecker>(); };
  return true;
}();

}  // namespace
}  // namespace thermocline::kernels::simt

// What the compiler calls; the sizes are those of both GCC and Clang.
#define SIMT_ACCESS(name, n_bytes, writes)                                                     \
  void name(void* address) {                                                                   \
    thermocline::kernels::simt::access(address, n_bytes, writes, __builtin_return_address(0)); \
  }
extern "C" {
SIMT_ACCESS(__tsan_read1, 1, false)
SIMT_ACCESS(__tsan_read2, 2, false)
SIMT_ACCESS(__tsan_read4, 4, false)
SIMT_ACCESS(__tsan_read8, 8, false)
SIMT_ACCESS(__tsan_read16, 16, false)
SIMT_ACCESS(__tsan_write1, 1, true)
SIMT_ACCESS(__tsan_write2, 2, true)
SIMT_ACCESS(__tsan_write4, 4, true)
SIMT_ACCESS(__tsan_write8, 8, true)
SIMT_ACCESS(__tsan_write16, 16, true)
SIMT_ACCESS(__tsan_unaligned_read2, 2, false)
SIMT_ACCESS(__tsan_unaligned_read4, 4, false)
SIMT_ACCESS(__tsan_unaligned_read8, 8, false)
SIMT_ACCESS(__tsan_unaligned_read16, 16, false)
SIMT_ACCESS(__tsan_unaligned_write2, 2, true)
SIMT_ACCESS(__tsan_unaligned_write4, 4, true)
SIMT_ACCESS(__tsan_unaligned_write8, 8, true)
SIMT_ACCESS(__tsan_unaligned_write16, 16, true)
void __tsan_read_range(void* address, size_t n_bytes) {
  thermocline::kernels::simt::access(address, n_bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t n_bytes) {
  thermocline::kernels::simt::access(address, n_bytes, true, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
