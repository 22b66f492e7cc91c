// Layer-to-layer factors of infinitely wide networks, for sample_study only: the recursions for the length of the
// signal, q' = sw2 E[phi^2], and of the gradient, chi = sw2 E[phi'^2] (Schoenholz et al. 2017; Yang &
// Schoenholz 2017 for skips; Yang et al. 2019 for batch norm), by quadrature.
#pragma once

#include <string>
#include <vector>

namespace gradflow::app {

struct SampleTheory {
  double weight_variance = 1;          // fan_in Var(W)
  std::vector<double> q;               // mean square of z^l, l = 1..L
  std::vector<double> factor;          // |dL/dz^l| / |dL/dz^(l+1)|, l = 1..L-1
  std::vector<double> activation_std;  // l = 1..L-1
  double end_to_end() const;
};

SampleTheory sample_theory(const std::string& activation, const std::string& init, const std::string& norm,
                           bool residual, int depth);

}  // namespace gradflow::app
