// CHECK for our own bugs only: input, files, network and devices return absl::Status instead.
#pragma once

#include <cstdio>
#include <cstdlib>

#define THERMOCLINE_CHECK(condition)                                                     \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)
