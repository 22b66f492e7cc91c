// What stands on the branch of a residual block besides its layers, for both builders of models.
//
// A number: ResidualAdd multiplies by it. A learned number: a Scalar layer "branch" behind the branch's last layer.
// SkipInit (De & Smith 2020, 2002.10444) and ReZero (Bachlechner et al. 2020, 2003.04887) are both
// x + a * branch(x) with a = 0 at the start. SkipInit is defined as what takes the place of batch norm; ReZero
// goes with it or without.
//
// Fixup (Zhang et al. 2019, 1901.09321), with L blocks of m weight layers each:
//   - the weights of the last layer of a branch, and of the network's last layer, start at zero;
//   - those of the other layers of a branch start L^(-1/(2m-2)) times as large as the initializer draws them;
//   - a scalar bias, 0 at the start, in front of every convolution, linear layer and activation but the first
//     layer of all (for an activation behind an addition: at the end of the branch), in place of bias vectors;
//     the network's last layer keeps its vector;
//   - a scalar multiplier, 1 at the start, at the end of every branch.
#pragma once

#include <cmath>
#include <string>

#include "gradflow/engine/graph.h"
#include "gradflow/layers/residual_add.h"
#include "gradflow/layers/scalar.h"

namespace gradflow {

// Of the initial weights of layer k = 1 .. m of a branch, in a network of `blocks` blocks.
inline double fixup_factor(std::int64_t blocks, int k, int m) {
  return k == m ? 0.0 : std::pow(static_cast<double>(blocks), -1.0 / (2.0 * m - 2.0));
}

// Spec has branch_scale, learned_scale and fixup.
template <class Spec>
ValueId add_fixup_bias(Graph& graph, const Spec& spec, const std::string& name, ValueId x) {
  return spec.fixup ? graph.add<Scalar>(name, {x}, ScalarOptions{.scale = false, .shift = true}) : x;
}

// skip + scaled branch, as node `block`add. activated: an activation follows the addition.
template <class Spec>
ValueId add_branch(Graph& graph, const Spec& spec, const std::string& block, ValueId skip, ValueId branch,
                   bool activated) {
  double scale = spec.branch_scale;
  if (spec.learned_scale) {
    branch = graph.add<Scalar>(block + "branch", {branch},
                               ScalarOptions{.shift = spec.fixup && activated, .initial_scale = scale});
    scale = 1;
  }
  return graph.add<ResidualAdd>(block + "add", {skip, branch}, scale);
}

}  // namespace gradflow
