// CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of frames; nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thermocline {

// Needs SSE4.2, which every CPU with AVX2 has.
uint32_t Crc32c(const void* data, size_t n_bytes);

}  // namespace thermocline
