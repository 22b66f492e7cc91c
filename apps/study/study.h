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
  std::vector<int> moments;       // steps at which all layers are measured; 0 and `steps` always are
  std::size_t held_out = 2000;    // test samples behind the curves; the last point uses all
  kernels::OptimizerKind optimizer = kernels::OptimizerKind::sgd;
  double learning_rate = 0.02, momentum = 0.9, weight_decay = 1e-4;
};

struct NetworkChoice {
  std::string id, title, model_spec;
  bool residual = false;
  std::string activation, init, norm;
  int depth = 0;
  bool yardstick = false;
};

// {plain, residual} x {sigmoid, tanh, ReLU} x {Xavier, He} x {no norm, batch norm}, the yardstick first.
std::vector<NetworkChoice> factorial(const StudyOptions& options);

// done in [0, 1]; `what` names the network at work.
using StudyProgress = std::function<void(double done, std::string_view what)>;

// Runs everything. Between steps it looks at interrupted(): then the result holds what was finished, valid,
// with `interrupted` set. Throws UserError for options, data or a device that do not fit.
StudyResult run_study(const StudyOptions& options, const StudyProgress& progress);

}  // namespace gradflow::app
