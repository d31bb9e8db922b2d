// mmap, and nothing cleverer.
#include "cpu_worker/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/util/check.h"
#include "fmt/format.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<Arena>> Arena::Create(int64_t n_bytes, const char* what) {
  const int64_t size = std::max<int64_t>(Aligned(n_bytes), 64);
  void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(fmt::format("no memory for {}: {:.2f} GiB: {}", what,
                                                    static_cast<double>(size) / (1 << 30),
                                                    std::strerror(errno)));
  }
  // Fewer TLB misses while weights stream; a kernel without huge pages works all the same.
  madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
  return std::unique_ptr<Arena>(new Arena(static_cast<uint8_t*>(data), size));
}

Arena::~Arena() { munmap(data_, static_cast<size_t>(size_)); }

uint8_t* Arena::Take(int64_t n_bytes) {
  THERMOCLINE_CHECK(used_ + Aligned(n_bytes) <= size_);
  uint8_t* piece = data_ + used_;
  used_ += Aligned(n_bytes);
  return piece;
}

}  // namespace thermocline
