// Small layers of f64 tensors for tests of graph, plan and executor: each claims something else of the plan
// (what backward reads, what may lie over what, workspace, saved tensors, several outputs), and computes
// with nothing but the pointers it is handed, so a plan that lies shows in the numbers.
#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gradflow/engine/layer.h"

namespace gradflow::toys {

inline void put(const BackwardContext& c, std::size_t input, std::size_t i, double gradient) {
  double* dx = c.dx[input].as<double>();
  dx[i] = c.modes[input] == GradMode::accumulate ? dx[i] + gradient : gradient;
}

// y = tanh(x). Reads its output, runs in place both ways.
struct InPlaceTanh final : Layer {
  std::string_view type() const noexcept override { return "toy_tanh"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    r.backward_reads_output = {0};
    r.output_over_input = 0;
    r.gradient_over_dy = 0;
    return r;
  }
  void forward(ForwardContext& c) const override {
    for (std::size_t i = 0; i < c.x[0].elements(); ++i)
      c.y[0].as<double>()[i] = std::tanh(c.x[0].as<double>()[i]);
  }
  void backward(BackwardContext& c) const override {
    if (c.modes[0] == GradMode::none) return;
    for (std::size_t i = 0; i < c.y[0].elements(); ++i) {
      const double y = c.y[0].as<double>()[i], dy = c.dy[0].as<double>()[i];
      put(c, 0, i, (1 - y * y) * dy);
    }
  }
};

// y = w * sin(x), w a parameter of x's shape. Reads its input; scribbles over its workspace in both
// directions, and works on a copy of dy in its scratch, which it scribbles over in the end.
struct ScaledSine final : Layer {
  struct Booked : Prepared {
    explicit Booked(std::size_t bytes) { forward_workspace = backward_workspace = bytes; }
  };
  std::string_view type() const noexcept override { return "toy_sine"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    r.parameters = {
        {.name = "w", .shape = x[0].shape, .role = ParameterRole::weight, .fan_in = 1, .fan_out = 1}};
    r.backward_reads_input = {0};
    r.backward_scratch = true;
    return r;
  }
  std::unique_ptr<Prepared> prepare(std::span<const TensorSpec> x, Backend&) const override {
    return std::make_unique<Booked>(x[0].bytes() + 8);
  }
  static void scribble(void* workspace, std::size_t n) {
    for (std::size_t i = 0; i < n + 1; ++i)
      static_cast<double*>(workspace)[i] = std::numeric_limits<double>::quiet_NaN();
  }
  void forward(ForwardContext& c) const override {
    scribble(c.workspace, c.x[0].elements());
    for (std::size_t i = 0; i < c.x[0].elements(); ++i)
      c.y[0].as<double>()[i] = c.parameters[0].as<double>()[i] * std::sin(c.x[0].as<double>()[i]);
  }
  void backward(BackwardContext& c) const override {
    scribble(c.workspace, c.x[0].elements());
    auto* scratch = static_cast<double*>(c.scratch);
    for (std::size_t i = 0; i < c.x[0].elements(); ++i) scratch[i] = c.dy[0].as<double>()[i];
    for (std::size_t i = 0; i < c.x[0].elements(); ++i) {
      const double x = c.x[0].as<double>()[i], dy = scratch[i];
      c.dparameters[0].as<double>()[i] = std::sin(x) * dy;
      if (c.modes[0] != GradMode::none) put(c, 0, i, c.parameters[0].as<double>()[i] * std::cos(x) * dy);
      scratch[i] = std::numeric_limits<double>::quiet_NaN();
    }
  }
};

// y = sum of (k + 1) / 2 * x_k over its inputs. Over its last input, and the first gradient over dy.
struct Blend final : Layer {
  std::string_view type() const noexcept override { return "toy_blend"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0]};
    for (std::size_t k = 0; k < x.size(); ++k) r.differentiable.bits |= 1u << k;
    r.output_over_input = static_cast<int>(x.size()) - 1;
    r.gradient_over_dy = 0;
    return r;
  }
  static double factor(std::size_t k) { return 0.5 * static_cast<double>(k + 1); }
  void forward(ForwardContext& c) const override {
    for (std::size_t i = 0; i < c.y[0].elements(); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < c.x.size(); ++k) sum += factor(k) * c.x[k].as<double>()[i];
      c.y[0].as<double>()[i] = sum;
    }
  }
  void backward(BackwardContext& c) const override {
    for (std::size_t i = 0; i < c.dy[0].elements(); ++i) {
      const double dy = c.dy[0].as<double>()[i];
      for (std::size_t k = c.dx.size(); k-- > 0;)
        if (c.modes[k] != GradMode::none) put(c, k, i, factor(k) * dy);
    }
  }
};

// y0 = cos(x), y1 = x / 2: two outputs, of which one may have no gradient. Saves sin(x), and dx may lie over
// it.
struct Fork final : Layer {
  std::string_view type() const noexcept override { return "toy_fork"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.outputs = {x[0], x[0]};
    r.saved = {x[0]};
    r.gradient_over_saved = 0;
    return r;
  }
  void forward(ForwardContext& c) const override {
    for (std::size_t i = 0; i < c.x[0].elements(); ++i) {
      const double x = c.x[0].as<double>()[i];
      if (!c.saved.empty()) c.saved[0].as<double>()[i] = std::sin(x);
      c.y[0].as<double>()[i] = std::cos(x);
      c.y[1].as<double>()[i] = 0.5 * x;
    }
  }
  void backward(BackwardContext& c) const override {
    if (c.modes[0] == GradMode::none) return;
    for (std::size_t i = 0; i < c.dx[0].elements(); ++i) {
      double gradient = 0;
      if (c.dy[0]) gradient -= c.saved[0].as<double>()[i] * c.dy[0].as<double>()[i];
      if (c.dy[1]) gradient += 0.5 * c.dy[1].as<double>()[i];
      put(c, 0, i, gradient);
    }
  }
};

// loss = sum over i of r_i * x_i with fixed signed r: makes r the gradient that arrives at x. The executor's
// loss_sum is that loss.
struct Cotangent final : Layer {
  explicit Cotangent(std::vector<double> r) : r_(std::move(r)) {}
  std::string_view type() const noexcept override { return "toy_cotangent"; }
  Inference infer(std::span<const TensorSpec> x) const override {
    Inference r;
    r.is_loss = true;
    r.saved = {x[0]};
    r.gradient_over_saved = 0;
    return r;
  }
  void forward(ForwardContext& c) const override {
    double sum = 0;
    for (std::size_t i = 0; i < r_.size(); ++i) {
      sum += r_[i] * c.x[0].as<double>()[i];
      if (!c.saved.empty()) c.saved[0].as<double>()[i] = r_[i];
    }
    c.loss->loss_sum += sum;
  }
  void backward(BackwardContext& c) const override {
    if (c.modes[0] == GradMode::none) return;
    for (std::size_t i = 0; i < r_.size(); ++i) {
      const double r = c.saved[0].as<double>()[i];
      put(c, 0, i, r);
    }
  }

 private:
  std::vector<double> r_;
};

}  // namespace gradflow::toys
