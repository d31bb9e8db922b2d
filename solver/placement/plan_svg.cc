// The picture of a plan, by hand-written SVG: rectangles and text only.
#include <fmt/format.h>

#include "solver/placement/plan_report.h"

namespace thermocline {
namespace {

// Told apart by people of all kinds of colour vision (Okabe and Ito's palette); GPUs come first in
// a description, so they get the warm ones.
constexpr const char* kColours[] = {"#D55E00", "#0072B2", "#56B4E9", "#009E73",
                                    "#E69F00", "#CC79A7", "#F0E442", "#999999"};
constexpr int kLeft = 70, kTop = 50, kHeight = 360, kWidth = 480, kGap = 90, kLegend = 22;

const char* Colour(size_t rank) { return kColours[rank % std::size(kColours)]; }

std::string EscapeXml(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string Text(double x, double y, const std::string& text, const char* anchor = "middle",
                 int size = 12) {
  return fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\">{}</text>\n", x, y,
      anchor, size, EscapeXml(text));
}

std::string VerticalText(double x, double y, const std::string& text) {
  return fmt::format(
      "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\" "
      "font-size=\"12\">{}</text>\n",
      x, y, EscapeXml(text));
}

// One panel: a column for each layer, `part(l, r)` a list of [begin, end) in 0..1 from the top.
template <typename Parts>
std::string Panel(double left, size_t n_layers, size_t n_ranks, const std::string& title,
                  const std::string& y_label, Parts parts) {
  std::string svg = Text(left + kWidth / 2.0, kTop - 14, title, "middle", 14);
  const double column = static_cast<double>(kWidth) / static_cast<double>(n_layers);
  for (size_t l = 0; l < n_layers; ++l) {
    for (size_t r = 0; r < n_ranks; ++r) {
      for (const auto& [begin, end] : parts(l, r)) {
        svg += fmt::format(
            "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"/>\n",
            left + column * static_cast<double>(l), kTop + kHeight * begin, column * 0.94,
            kHeight * (end - begin), Colour(r));
      }
    }
  }
  for (const int percent : {0, 25, 50, 75, 100}) {
    const double y = kTop + kHeight * percent / 100.0;
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#333\"/>\n",
        left - 5, y, left, y);
    svg += Text(left - 8, y + 4, fmt::format("{} %", percent), "end");
  }
  const size_t tick = n_layers <= 16 ? 1 : n_layers <= 48 ? 4 : 10;
  for (size_t l = 0; l < n_layers; l += tick) {
    svg += Text(left + column * (static_cast<double>(l) + 0.5), kTop + kHeight + 16,
                fmt::format("{}", l));
  }
  svg += Text(left + kWidth / 2.0, kTop + kHeight + 36, "layer");
  return svg + VerticalText(left - 50, kTop + kHeight / 2.0, y_label);
}

}  // namespace

std::string PlanSvg(const ModelShape& shape, const Hardware& hardware, const PlannedFleet& fleet) {
  using Parts = std::vector<std::pair<double, double>>;
  const std::vector<LayerPlan>& layers = fleet.plan.layers;
  const size_t n_ranks = fleet.ranks.size();
  const double d_ff = static_cast<double>(shape.config.d_ff);
  const auto neurons = [&](size_t l, size_t r) {
    Parts parts;
    for (const Range& range : layers[l].neurons[r]) {
      parts.emplace_back(static_cast<double>(range.begin) / d_ff,
                         static_cast<double>(range.end) / d_ff);
    }
    return parts;
  };
  const auto activations = [&](size_t l, size_t r) {
    double begin = 0;
    for (size_t before = 0; before < r; ++before) {
      begin += ActivationsCovered(fleet.firing.tables[l], layers[l].neurons[before]);
    }
    return Parts{{begin, begin + ActivationsCovered(fleet.firing.tables[l], layers[l].neurons[r])}};
  };
  const double second = kLeft + kWidth + kGap;
  const int width = kLeft + 2 * kWidth + kGap + 20;
  const int height = kTop + kHeight + 50 + kLegend * static_cast<int>(n_ranks + 1);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      width, height);
  svg += Panel(
      kLeft, layers.size(), n_ranks, "Neurons by their home",
      fleet.firing.order.empty() ? "neurons, in the file's order" : "neurons, hottest at the top",
      neurons);
  svg += Panel(second, layers.size(), n_ranks, "Activations that each rank covers",
               "share of the layer's activations", activations);
  for (size_t r = 0; r < n_ranks; ++r) {
    const double y = kTop + kHeight + 50 + kLegend * static_cast<double>(r);
    svg += fmt::format("<rect x=\"{}\" y=\"{:.1f}\" width=\"14\" height=\"14\" fill=\"{}\"/>\n",
                       kLeft, y, Colour(r));
    svg += Text(kLeft + 22, y + 12,
                fmt::format("rank {}: {}, {:.1f} GiB used", r, hardware.ranks[r].name,
                            fleet.ranks[r].total_bytes() / (1024.0 * 1024 * 1024)),
                "start");
  }
  svg +=
      Text(width - 20, height - kLegend,
           fmt::format("{}, predicted {:.1f} tokens/s", shape.name, 1e6 / fleet.plan.predicted_us),
           "end");
  return svg + "</svg>\n";
}

}  // namespace thermocline
