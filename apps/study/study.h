// The demo's study: a factorial of deep fully connected networks, measured at initialization and while they
// learn. Networks of one comparison share every weight bit and every batch; only the factor differs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/study/results.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/optimizer.h"

namespace gradflow::app {

struct StudyOptions {
  std::string device = "auto";
  std::string data = "fashion-mnist";
  std::uint64_t seed = 1;
  int depth = 50, width = 128;
  int yardstick_depth = 4;
  int batch = 128;
  int init_seeds = 8;             // networks averaged at initialization
  int steps = 300;                // of training
  bool quick = false;             // the pair too is trained for fewer steps
  std::vector<int> moments;       // steps at which all layers are measured; 0 and `steps` always are
  std::size_t held_out = 2000;    // test samples behind the curves; 0: only the last point has any
  std::size_t final_held_out = static_cast<std::size_t>(-1);  // behind the last point; all if there are fewer
  kernels::OptimizerKind optimizer = kernels::OptimizerKind::sgd;
  double learning_rate = 0.02, momentum = 0.9, weight_decay = 1e-4;
};

struct NetworkChoice {
  std::string id, title, model_spec;
  bool residual = false;
  std::string activation, init, norm;
  int depth = 0, width = 0;
  bool yardstick = false;
  bool own_outputs = false;  // see LayerProbes: z^l is the output of weight layer l itself
  bool scale_free = false;   // a batch norm follows every weight layer but the head at once
};

// The result's part that is known before anything was measured.
NetworkResult unmeasured(const NetworkChoice& choice);

// {plain, residual} x {sigmoid, tanh, ReLU} x {Xavier, He} x {no norm, batch norm}, the yardstick first.
std::vector<NetworkChoice> factorial(const StudyOptions& options);

enum class PairSize : std::uint8_t { automatic, full, reduced, off };  // automatic: full on a GPU, reduced on the host

// done in [0, 1]; `what` names the network at work.
using StudyProgress = std::function<void(double done, std::string_view what)>;

// Runs the factorial, and the pair (pair.h) unless told not to. Between steps it looks at interrupted(): then the result holds what was finished, valid,
// with `interrupted` set. Throws UserError for options, data or a device that do not fit.
StudyResult run_study(const StudyOptions& options, PairSize pair, const StudyProgress& progress);

}  // namespace gradflow::app
