// The locality of a model as a picture: how much of a layer's firings its hottest neurons have
// (PowerInfer, arXiv 2312.12456, figure of neuron activation). SVG; from the profile alone.
#pragma once

#include <string>

#include "common/model/profile.h"

namespace thermocline {

// Share of the layer's firings that the hottest `share` of its neurons have, 0..1.
double FiringsOfHottest(const LayerProfile& layer, double share);

// x: share of the neurons, hottest first; y: share of the firings. One curve a layer, a legend for
// a few of them, and a line at 80 % with the share of neurons that a layer needs for it.
std::string LocalitySvg(const Profile& profile, const std::string& title);

}  // namespace thermocline
