// What a fleet's workers did so far, added up: neurons, bytes, time. Differences of two say what
// happened between them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/inference.pb.h"
#include "proto/worker.pb.h"

namespace thermocline {

struct FleetTotals {
  uint64_t steps = 0;
  int64_t step_bytes = 0;  // weights that every step of one token reads, on all ranks
  // Of layers that leave neurons out, all ranks and layers together; worker.proto's FfnCounts.
  uint64_t tokens = 0;  // of the busiest layer
  uint64_t neurons = 0, computed = 0, fired = 0, bytes = 0, missed = 0;
  double mass = 0, missed_mass = 0;
  uint64_t gpu_neurons = 0, gpu_fired = 0;  // of those, on GPU ranks
  // Nanoseconds of the slowest rank, as in StepTimes: attention, choosing, gate, up, down,
  // exchange, output, other.
  static constexpr int kParts = 8;
  static constexpr const char* kPartNames[kParts] = {"attention", "choose",   "gate",   "up",
                                                     "down",      "exchange", "output", "other"};
  std::array<double, kParts> part_ns = {};

  bool leaves_out() const { return neurons > 0; }
  double ComputedShare() const { return Share(computed, neurons); }
  double FiredShare() const { return Share(fired, neurons); }
  // Of firings, and of the sum of |gate| over them; where recall was measured.
  double Recall() const { return 1.0 - Share(missed, fired + missed); }
  double MassRecall() const { return mass > 0 ? 1.0 - missed_mass / mass : 1.0; }
  // Hot neurons: what GPU ranks hold of the neurons, and of the firings.
  double HotShare() const { return Share(gpu_neurons, neurons); }
  double HotHitRate() const { return Share(gpu_fired, fired); }
  // Bytes of weights that a token takes, if each was a step of its own.
  double TokenBytes() const;
  // Of all the steps' time, 0..1.
  double TimeShare(int part) const;

  // "28.2 % of neurons computed, 9.4 % fired; choosing took 12.3 % of the time", with the hit rate
  // of hot neurons where there are GPUs, with recall where it was measured; "" when nothing was
  // left out.
  std::string Describe() const;

  FleetTotals Since(const FleetTotals& before) const;

  static double Share(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  }
};

FleetTotals TotalsOf(const std::vector<worker::v1::StatsResponse>& ranks);

// What clients are told of the ranks.
v1::StatsResponse StatsForClients(const std::vector<worker::v1::StatsResponse>& ranks);
// One line a rank: what it is, its memory, its time a step, its neurons' share of the firings.
std::string RankTable(const v1::StatsResponse& stats);

}  // namespace thermocline
