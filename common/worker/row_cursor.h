// Walks the rows of some ranges in order.
#pragma once

#include <cstdint>
#include <vector>

#include "common/plan/plan.h"

namespace thermocline {

class RowCursor {
 public:
  // Begins at the `skipped`-th row of the ranges, which must outlive the cursor.
  RowCursor(const std::vector<Range>& ranges, int64_t skipped) : ranges_(ranges) {
    while (range_ < ranges_.size() && skipped >= ranges_[range_].size()) {
      skipped -= ranges_[range_++].size();
    }
    if (range_ < ranges_.size()) next_ = ranges_[range_].begin + skipped;
  }

  // -1 when there are no more.
  int64_t Next() {
    while (range_ < ranges_.size() && next_ == ranges_[range_].end) {
      if (++range_ < ranges_.size()) next_ = ranges_[range_].begin;
    }
    return range_ < ranges_.size() ? next_++ : -1;
  }

 private:
  const std::vector<Range>& ranges_;
  size_t range_ = 0;
  int64_t next_ = 0;
};

}  // namespace thermocline
