// What the sparse layers of a rank did: neurons, activation mass, bytes. Plain numbers.
#pragma once

#include <cstdint>

namespace thermocline {

// Of one layer and this rank's neurons. A neuron counts once for each token.
struct FfnCounts {
  uint64_t tokens = 0;
  uint64_t neurons = 0;   // that there were
  uint64_t computed = 0;  // whose gate was computed
  uint64_t fired = 0;     // of these, whose gate passed
  uint64_t bytes = 0;     // of weights that were read, in lines of 64 bytes
  // Where recall is measured: neurons that should have fired but were ruled out, and the sums of
  // |gate| over all that should have and over those ruled out.
  uint64_t missed = 0;
  double mass = 0;
  double missed_mass = 0;

  void Add(const FfnCounts& other) {
    tokens += other.tokens;
    neurons += other.neurons;
    computed += other.computed;
    fired += other.fired;
    bytes += other.bytes;
    missed += other.missed;
    mass += other.mass;
    missed_mass += other.missed_mass;
  }
};

}  // namespace thermocline
