// Layer: what a network is made of.
//
// A layer says once, in infer(), everything the plan must know: output shapes, parameters, what backward
// reads, what may happen in place, and what a pass costs. forward() and backward() then only queue
// launches on the backend: they allocate nothing, keep no tensor, and see fixed addresses. One layer
// object may serve several executors; it holds configuration only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gradflow/engine/tensor.h"
#include "gradflow/kernels/backend.h"

namespace gradflow {

using kernels::Backend;

// Decides how a parameter is initialized.
enum class ParameterRole : std::uint8_t {
  weight,  // by the network's initializer, from fan_in and fan_out
  bias,    // zero, or uniform in +-1/sqrt(fan_in) under the `torch` initializer
  scale,   // one
  shift,   // zero
};

struct ParameterSpec {
  std::string name;  // within the layer: "weight"; the graph puts the node's name before it
  Shape shape;
  ParameterRole role = ParameterRole::weight;
  std::int64_t fan_in = 1, fan_out = 1;
  double factor = 1;  // on the initial value of a weight or scale: a layer that starts smaller, or at zero
  bool decay = true;  // weight decay applies
  bool multiplied = false;  // enters matrix products: of a bf16 network, layers read a bf16 copy of it
};

struct StateSpec {  // persistent, not trained: running statistics, gates
  std::string name;
  TensorSpec spec;
  double initial = 0;
  bool control = false;  // a switch for experiments, nothing learned: files of others lack it
};

// A set of operand indices 0..31.
struct Operands {
  std::uint32_t bits = 0;
  constexpr Operands() = default;
  constexpr Operands(std::initializer_list<int> indices) {
    for (int i : indices) bits |= 1u << i;
  }
  constexpr bool contains(std::size_t i) const noexcept { return (bits >> i & 1u) != 0; }
};

struct Cost {  // bytes that must move to and from memory, and floating-point operations (2 per multiply-add)
  double bytes = 0, flops = 0;
};

struct Inference {
  std::vector<TensorSpec> outputs;  // none for a loss
  std::vector<ParameterSpec> parameters;
  std::vector<StateSpec> states;
  std::vector<TensorSpec> saved;        // written by a training forward, read by backward
  Operands differentiable = {0};        // inputs that have a gradient (labels have none)
  Operands backward_reads_input = {};   // x(i) must survive until this layer's backward
  Operands backward_reads_output = {};  // y(i) likewise
  std::optional<int> output_over_input;    // y(0) may lie over x(i), if nobody reads x(i) afterwards
  std::optional<int> gradient_over_dy;     // dx(i) may lie over dy(0), when it overwrites
  std::optional<int> gradient_over_saved;  // dx(i) may lie over saved(0): forward has already made it
  bool backward_scratch = false;  // backward writes a tensor like dy(0) for itself; it may lie over dy(0), so such a
                                  // layer offers no gradient_over_dy
  bool is_loss = false;                    // backward starts here
  Cost forward, backward;  // backward with a gradient for every differentiable input
  // By input: the part of `backward` that is dx(i)'s alone, saved where nobody wants it, as in a network's first layer.
  // Inputs behind the end: nothing.
  std::vector<Cost> dx_costs;
};

// What a layer can measure inside the passes it makes anyway: statistics, and the histogram over exponents beside
// them. The executor then hands it sinks (contexts below); other measurements cost a pass of their own.
struct FusedStats {
  bool x = false, y = false;    // in forward, of one input and of output 0
  bool dy = false, dx = false;  // in backward, of dy(0) and of that input's gradient as it stands afterwards
  int input = 0;                // which input x and dx are
  // Of a layer that fuse() made: in forward the values between its parts, which are never stored, as they would be
  // stored; in backward their gradients.
  bool between = false;
  // A host measures them at less cost while its parts stay apart: each part's pass waits for memory, and measuring hides
  // behind that, where the fused pass is bound by arithmetic.
  bool between_costs_host = false;
  PointwiseId output_op = PointwiseId::identity;  // decides what counts as saturated in output 0
};

// Where the measurements of one array are added; null where nobody asks.
struct ProbeSinks {
  Stats* stats = nullptr;
  std::uint64_t* exponents = nullptr;  // kExponentBins
};

// A fused layer has at most so many values between its parts, in the order in which forward comes to them.
inline constexpr std::size_t kMostBetween = 2;
using BetweenSinks = std::array<ProbeSinks, kMostBetween>;

// Vendor objects made once per executor: prepared products, descriptors. Also books workspace.
class Prepared {
 public:
  virtual ~Prepared() = default;
  std::size_t forward_workspace = 0, backward_workspace = 0;  // bytes
  std::string forward_description, backward_description;  // how a vendor's library runs it, for people; may be empty
};

struct ForwardContext {
  Backend* backend = nullptr;
  bool training = true;
  std::span<const Tensor> x, y, parameters, states, saved;
  void* workspace = nullptr;
  Prepared* prepared = nullptr;
  kernels::LossResult* loss = nullptr;  // where a loss adds its result
  Stats *x_stats = nullptr, *y_stats = nullptr;
  std::uint64_t *x_exponents = nullptr, *y_exponents = nullptr;  // kExponentBins each
  BetweenSinks between;
};

struct BackwardContext {
  Backend* backend = nullptr;
  std::span<const Tensor> x, y, dy, dx, parameters, dparameters, states, saved;
  // x(i) and y(i) are null unless declared in infer(); dx(i) is null where its mode is none.
  std::span<const GradMode> modes;            // one per input
  std::span<const GradMode> parameter_modes;  // one per parameter
  void* workspace = nullptr;
  void* scratch = nullptr;  // of dy(0)'s size, perhaps dy(0) itself, where infer() asked for it
  Prepared* prepared = nullptr;
  Stats *dy_stats = nullptr, *dx_stats = nullptr;
  std::uint64_t *dy_exponents = nullptr, *dx_exponents = nullptr;
  BetweenSinks between;  // of the gradients
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual std::string_view type() const noexcept = 0;  // "linear"
  // The only place where shapes are decided; throws UserError when the inputs do not fit.
  virtual Inference infer(std::span<const TensorSpec> inputs) const = 0;
  virtual std::unique_ptr<Prepared> prepare(std::span<const TensorSpec> inputs, Backend& backend) const;
  // One layer that does what this one does and then `next`, whose input `operand` is this one's only output and is
  // read by nobody else; null where there is none. Its inputs are this layer's and then the others of `next`,
  // its output is that of `next`; parameters and states are this layer's and then those of `next`.
  virtual std::shared_ptr<const Layer> fuse(const Layer& next, std::size_t operand) const;
  virtual FusedStats fused_stats() const noexcept { return {}; }
  virtual void forward(ForwardContext& c) const = 0;
  virtual void backward(BackwardContext& c) const = 0;
};

}  // namespace gradflow
