// Where the exchanges of a step meet in a segment, as plain data: for a rank whose device takes
// part in them by itself, without calls of the host's.
#pragma once

#include <cstdint>

namespace thermocline {

// Where ranks that hold a layer's attention and ranks that hold the tail of its context (TailShape
// in segment.h) meet: the former leave q, k and v, the latter what they made of them. Each writes
// the columns of its own heads.
struct TailMemory {
  float* q = nullptr;      // [n_tokens, n_heads * d_head], before RoPE
  float* k = nullptr;      // [n_tokens, n_kv_heads * d_head], before RoPE
  float* v = nullptr;      // [n_tokens, n_kv_heads * d_head]
  float* state = nullptr;  // [n_tokens, n_heads, 2 + d_head]: max, sum, o over the tail positions
};

// Which neurons of a layer the rank that decides for others has chosen: bit i % 32 of word i / 32
// is the i-th of all that it decides on.
struct ChoiceMemory {
  uint32_t* bits = nullptr;  // [n_tokens, stride]
  int64_t stride = 0;        // a multiple of 4
};

// What belongs to each partial: of which exchange it is. Written before its rank arrives.
struct alignas(64) PartialHeader {
  uint32_t epoch;
  uint32_t exchange;  // number of the exchange in the step, from 0
  uint64_t step_number;
  uint32_t is_empty;  // 1: nothing to add, the payload is not to be read
};

// Addresses in the segment. A rank whose device writes to it tells nobody that sleeps: its host
// does (Exchange::WakeWaiters).
struct ExchangeMemory {
  const uint32_t* abort = nullptr;   // not 0: the step is given up
  uint32_t* arrived = nullptr;       // of rank 0: waits of the rank so far, cyclic
  int64_t arrived_stride = 0;        // from one rank's to the next one's, in uint32_t
  PartialHeader* headers = nullptr;  // [n_ranks, 2]: exchange number modulo 2
  float* partials = nullptr;         // [n_ranks, 2, partial_stride], [d_model] of each is used
  int64_t partial_stride = 0;
  int32_t n_ranks = 0;
  int32_t rank = 0;
  uint32_t epoch = 0;
};

}  // namespace thermocline
