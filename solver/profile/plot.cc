// Curves in an SVG, written out by hand.
#include "solver/profile/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace thermocline {
namespace {

// Pixels.
constexpr double kWidth = 760, kHeight = 520;
constexpr double kLeft = 70, kTop = 50, kPlotWidth = 500, kPlotHeight = 400;
constexpr int kPoints = 200;  // of a curve
constexpr int kLegendRows = 8;
constexpr double kMark = 0.8;  // the line, as in PowerInfer's text

double X(double share) { return kLeft + share * kPlotWidth; }
double Y(double share) { return kTop + (1 - share) * kPlotHeight; }

// Firings of the hottest i neurons, of all. [d_ff + 1]
std::vector<double> Cumulative(const LayerProfile& layer) {
  std::vector<double> sums = {0};
  for (const int32_t neuron : HottestFirst(layer))
    sums.push_back(sums.back() + layer.fired[neuron]);
  const double all = sums.back();
  for (double& sum : sums) sum = all > 0 ? sum / all : 0;
  return sums;
}

// Between the neurons' steps in a straight line.
double At(const std::vector<double>& cumulative, double share) {
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(cumulative.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, cumulative.size() - 1);
  return std::lerp(cumulative[low], cumulative[high], at - static_cast<double>(low));
}

// The share of neurons that has kMark of the firings.
double ShareForMark(const std::vector<double>& cumulative) {
  const auto at = std::lower_bound(cumulative.begin(), cumulative.end(), kMark);
  return static_cast<double>(at - cumulative.begin()) / static_cast<double>(cumulative.size() - 1);
}

// First layer blue, last red.
std::string Color(size_t layer, size_t n_layers) {
  const double at =
      n_layers > 1 ? static_cast<double>(layer) / static_cast<double>(n_layers - 1) : 0;
  return fmt::format("hsl({:.0f},75%,42%)", 225 - 225 * at);
}

std::string Axes(const std::string& title) {
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"13\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{2}\" y=\"26\" font-size=\"16\">{3}</text>\n",
      kWidth, kHeight, kLeft, title);
  for (int i = 0; i <= 10; i += 2) {
    const double share = i / 10.0;
    svg += fmt::format(
        "<path d=\"M{0} {1}V{2}M{3} {4}H{5}\" stroke=\"#ddd\" fill=\"none\"/>\n"
        "<text x=\"{0}\" y=\"{6}\" text-anchor=\"middle\">{7}</text>\n"
        "<text x=\"{8}\" y=\"{9}\" text-anchor=\"end\">{7}</text>\n",
        X(share), Y(0), Y(1), X(0), Y(share), X(1), Y(0) + 20, i * 10, X(0) - 8, Y(share) + 4);
  }
  svg += fmt::format(
      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">neurons, hottest first (%)</text>\n"
      "<text transform=\"translate(22 {}) rotate(-90)\" text-anchor=\"middle\">firings (%)</text>\n"
      "<path d=\"M{} {}H{}\" stroke=\"#555\" stroke-dasharray=\"6 4\" fill=\"none\"/>\n",
      X(0.5), Y(0) + 46, Y(0.5), X(0), Y(kMark), X(1));
  return svg;
}

std::string Curve(const std::vector<double>& cumulative, const std::string& color) {
  std::string path;
  for (int i = 0; i <= kPoints; ++i) {
    const double share = static_cast<double>(i) / kPoints;
    path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? 'M' : 'L', X(share), Y(At(cumulative, share)));
  }
  return fmt::format("<path d=\"{}\" stroke=\"{}\" stroke-width=\"1.5\" fill=\"none\"/>\n", path,
                     color);
}

// Text is escaped: a model's file may have any name.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

double FiringsOfHottest(const LayerProfile& layer, double share) {
  return At(Cumulative(layer), share);
}

std::string LocalitySvg(const Profile& profile, const std::string& title) {
  const size_t n_layers = profile.layers.size();
  std::string svg = Axes(Escaped(title));
  const size_t stride = (n_layers + kLegendRows - 1) / kLegendRows;
  int row = 0;
  const double legend = X(1) + 20;
  svg += fmt::format("<text x=\"{}\" y=\"{}\">neurons for {:.0f} %:</text>\n", legend, kTop + 12,
                     kMark * 100);
  for (size_t i = 0; i < n_layers; ++i) {
    const std::vector<double> cumulative = Cumulative(profile.layers[i]);
    const std::string color = Color(i, n_layers);
    svg += Curve(cumulative, color);
    if (i % stride != 0 && i + 1 != n_layers) continue;
    const double y = kTop + 38 + 22 * row++;
    svg += fmt::format(
        "<path d=\"M{0} {1}h20\" stroke=\"{2}\" stroke-width=\"3\"/>\n"
        "<text x=\"{3}\" y=\"{4}\">layer {5}: {6:.0f} %</text>\n",
        legend, y, color, legend + 28, y + 4, i, 100 * ShareForMark(cumulative));
  }
  return svg + "</svg>\n";
}

}  // namespace thermocline
