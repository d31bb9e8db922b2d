// The cost model beside published and measured rates of peers, and the guide's tables beside what
// it predicts for us. Data and printing; the model is cost_model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace thermocline {

struct PublishedRate {
  std::string engine, model, machine, source;
  double published = 0;  // tokens/s
  double predicted = 0;
  // Not one that the model is for, with the reason; such rows are printed and not asserted.
  std::string not_covered;
  double ratio() const { return predicted / published; }
};

absl::StatusOr<std::vector<PublishedRate>> ComparePublished();
std::string PublishedTable(const std::vector<PublishedRate>& rates);  // Markdown

// The rows of the user's guide: memory, layers on the GPU, throughput, as Markdown tables.
std::string GuideTables();

}  // namespace thermocline
