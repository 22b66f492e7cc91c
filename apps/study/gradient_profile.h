// What the gradient does on its way down through the layers, as numbers: one moment's rows, condensed.
#pragma once

#include <optional>

#include "apps/study/results.h"

namespace gradflow::app {

// Layers without a measured gradient are left out, and so are those inside a two-layer residual block: they
// are not on the way to the layers below. "Inner" layers are 2..L-1, or all of them where that leaves fewer
// than two: the step from the head (other fan-in and fan-out) and the step to the stem (other input
// variance) follow other rules than all those between, and say nothing about depth.
struct GradientProfile {
  int measured = 0;              // layers with a gradient norm, infinite ones included
  int top = 0, bottom = 0;       // the highest and the lowest of them
  double end_to_end = kMissing;  // |dL/dz^bottom| / |dL/dz^top|
  double factor = kMissing;  // least-squares slope of log10 |dL/dz^l| over the inner layers, as a factor a
                             // layer towards the input; layers that are mostly denormal are left out
  int fit_top = 0, fit_bottom = 0;  // the highest and the lowest layer of that fit; 0 without one

  int inner_top = 0;  // what weakest and strongest are relative to
  double weakest = kMissing, strongest = kMissing;
  int weakest_layer = 0, strongest_layer = 0;

  // The highest layer with a gradient of exactly zero. It underflowed if the gradient just above is
  // denormal or about to be; otherwise something cut it off at one stroke.
  std::optional<int> zero_from;
  bool underflow = false;
  double norm_above_zero = kMissing;
  std::optional<int> nonfinite_from;  // the highest layer with a NaN or infinite gradient

  double predicted_factor = kMissing, predicted_end_to_end = kMissing;  // the same from predicted_norm
};

GradientProfile read_profile(const Moment& moment);

}  // namespace gradflow::app
