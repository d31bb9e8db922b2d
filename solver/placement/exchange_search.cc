// The exchange search: steepest moves, portions halved from an eighth of a layer to one neuron. For
// one scarce memory this is the exact method for separable convex resource allocation.
#include "solver/placement/exchange_search.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace thermocline {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kWorthwhile = 1e-9;    // of a step: less is rounding
constexpr int32_t kMaxPairedRanks = 8;  // beyond, pairs are too many: prices alone are close

class Search {
 public:
  Search(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers,
         std::vector<LayerCut>* cuts)
      : problem_(problem), solvers_(solvers), cuts_(*cuts), slack_(problem.free_bytes) {
    for (size_t l = 0; l < cuts_.size(); ++l) {
      us_.push_back(solvers_[l].Us(cuts_[l]));
      Charge(l, -1);
    }
    least_gain_ = kWorthwhile * std::accumulate(us_.begin(), us_.end(), 0.0);
  }

  void Run() {
    int64_t portion = 1;
    for (const LayerSolver& solver : solvers_) {
      portion = std::max(portion, solver.n_neurons() / 8);
    }
    UseSlack();
    if (problem_.n_ranks() > kMaxPairedRanks) return;
    for (; portion >= 1; portion /= 2) {
      for (int32_t r = 0; r < problem_.n_ranks(); ++r) {
        for (int32_t s = r + 1; s < problem_.n_ranks(); ++s) Trade(r, s, portion);
      }
      UseSlack();
    }
  }

 private:
  struct Move {
    LayerCut cut;
    double gain = -kNever;  // us
  };

  // Takes a layer's neurons from the slack (-1), or gives them back (+1).
  void Charge(size_t l, int sign) {
    for (int32_t r = 0; r < problem_.n_ranks(); ++r) {
      slack_[r] += sign * static_cast<double>(cuts_[l].counts[r]) * solvers_[l].held_bytes();
    }
  }

  void Apply(size_t l, const LayerCut& cut) {
    Charge(l, +1);
    cuts_[l] = cut;
    us_[l] = solvers_[l].Us(cut);
    Charge(l, -1);
  }

  // Neurons of layer l that a part of rank r's slack has room for.
  int64_t Spare(size_t l, int32_t r, double part) const {
    return static_cast<int64_t>(std::max(0.0, slack_[r]) * part / solvers_[l].held_bytes());
  }

  // Layer l, when `from` gives up n of its neurons and `to` may take so many more; the others share
  // the slack with a second layer.
  Move Shift(size_t l, int32_t from, int32_t to, int64_t n) const {
    Move move;
    if (cuts_[l].counts[from] < n) return move;
    std::vector<int64_t> room = cuts_[l].counts;
    for (int32_t r = 0; r < problem_.n_ranks(); ++r) room[r] += Spare(l, r, 0.5);
    room[from] = cuts_[l].counts[from] - n;
    room[to] += n;
    move.cut.order = cuts_[l].order;
    if (solvers_[l].Within(room, &move.cut)) move.gain = us_[l] - solvers_[l].Us(move.cut);
    return move;
  }

  // The same neurons in two layers may take different bytes: what `to` gets more must be in its
  // slack.
  bool Fits() const {
    return std::all_of(slack_.begin(), slack_.end(), [](double bytes) { return bytes >= -1e-6; });
  }

  // Moves n neurons of one layer from r to s and of another from s to r, best pair first.
  void Trade(int32_t r, int32_t s, int64_t n) {
    std::vector<Move> there(cuts_.size()), back(cuts_.size());
    const auto evaluate = [&](size_t l) {
      there[l] = Shift(l, r, s, n);
      back[l] = Shift(l, s, r, n);
    };
    for (size_t l = 0; l < cuts_.size(); ++l) evaluate(l);
    for (size_t tries = 0; tries < 8 * cuts_.size(); ++tries) {
      size_t a = 0, b = cuts_.size();
      double best = least_gain_;
      BestPair(there, back, &a, &b, &best);
      if (b == cuts_.size()) return;
      const LayerCut old_a = cuts_[a], old_b = cuts_[b];
      Apply(a, there[a].cut);
      Apply(b, back[b].cut);
      if (Fits()) {
        evaluate(a);
        evaluate(b);
      } else {
        Apply(a, old_a);
        Apply(b, old_b);
        there[a].gain = back[b].gain = -kNever;
      }
    }
  }

  static void BestPair(const std::vector<Move>& there, const std::vector<Move>& back, size_t* a,
                       size_t* b, double* best) {
    // The best of the second list and its runner-up, for where both bests are the same layer.
    size_t first = 0, second = back.size();
    for (size_t l = 1; l < back.size(); ++l) {
      if (back[l].gain > back[first].gain) {
        second = first;
        first = l;
      } else if (second == back.size() || back[l].gain > back[second].gain) {
        second = l;
      }
    }
    for (size_t l = 0; l < there.size(); ++l) {
      const size_t other = l == first ? second : first;
      if (other == back.size() || !(there[l].gain + back[other].gain > *best)) continue;
      *best = there[l].gain + back[other].gain;
      *a = l;
      *b = other;
    }
  }

  // The best that layer l can do with the memory that is left, in its order of ranks or with two
  // neighbours of it swapped.
  Move Alone(size_t l) const {
    std::vector<int64_t> room = cuts_[l].counts;
    for (int32_t r = 0; r < problem_.n_ranks(); ++r) room[r] += Spare(l, r, 1);
    Move best;
    for (size_t k = 0; k < cuts_[l].order.size(); ++k) {
      Move move;
      move.cut.order = cuts_[l].order;
      if (k > 0) std::swap(move.cut.order[k - 1], move.cut.order[k]);
      if (!solvers_[l].Within(room, &move.cut)) continue;
      move.gain = us_[l] - solvers_[l].Us(move.cut);
      if (move.gain > best.gain) best = std::move(move);
    }
    return best;
  }

  // Lets each layer use what memory is left, the layer that gains most first.
  void UseSlack() {
    std::vector<Move> moves(cuts_.size());
    for (size_t l = 0; l < cuts_.size(); ++l) moves[l] = Alone(l);
    for (size_t tries = 0; tries < 4 * cuts_.size(); ++tries) {
      const auto best = std::max_element(
          moves.begin(), moves.end(), [](const Move& a, const Move& b) { return a.gain < b.gain; });
      if (!(best->gain > least_gain_)) return;
      const auto l = static_cast<size_t>(best - moves.begin());
      const LayerCut old = cuts_[l];
      Apply(l, best->cut);
      if (!Fits()) Apply(l, old);  // the move was found when there was more slack
      moves[l] = Alone(l);
    }
  }

  const PlacementProblem& problem_;
  const std::vector<LayerSolver>& solvers_;
  std::vector<LayerCut>& cuts_;
  std::vector<double> slack_;  // [n_ranks], bytes
  std::vector<double> us_;     // [n_layers]
  double least_gain_ = 0;
};

}  // namespace

void SearchByExchange(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers,
                      std::vector<LayerCut>* cuts) {
  if (!cuts->empty()) Search(problem, solvers, cuts).Run();
}

}  // namespace thermocline
