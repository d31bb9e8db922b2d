// CRC-32C against published values and against the definition, bit by bit.
#include "common/rpc/crc32c.h"

#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace thermocline {
namespace {

uint32_t OneBitAtATime(const uint8_t* data, size_t n_bytes) {
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < n_bytes; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

// RFC 3720, B.4, and the check value of the catalogue of CRCs.
TEST(Crc32cTest, PublishedValues) {
  EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u);
  EXPECT_EQ(Crc32c("", 0), 0u);
  EXPECT_EQ(Crc32c(std::string(32, '\0').data(), 32), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff').data(), 32), 0x62a8ab43u);
  std::string ascending(32, '\0');
  std::iota(ascending.begin(), ascending.end(), 0);
  EXPECT_EQ(Crc32c(ascending.data(), 32), 0x46dd794eu);
}

TEST(Crc32cTest, EveryLengthAndStartEqualsTheDefinition) {
  std::vector<uint8_t> data(10'000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * i * 31 + i / 7);
  for (size_t n_bytes = 0; n_bytes < 9'900; n_bytes += n_bytes < 40 ? 1 : 97) {
    const size_t start = n_bytes % 9;
    EXPECT_EQ(Crc32c(data.data() + start, n_bytes), OneBitAtATime(data.data() + start, n_bytes))
        << n_bytes << " bytes from " << start;
  }
}

}  // namespace
}  // namespace thermocline
