// Pointwise operations: one struct owns an op's name, forward, backward and what it saves.
//
// The list at the end is the only registry. The host loop, the CUDA kernel, the layer factory, the
// model specification, the gradient check, the parity test and the benchmark row follow from it, so
// adding an activation touches this file alone (and the three sets of functions below, if it needs a new one).
//
// `M` supplies exp, tanh, ... for the scalar type in use: accurate and vectorizable on the host
// (kernels/cpu/vector_math.h), CUDA's own in a kernel (kernels/cuda/stream.cuh), StdMath for f64. Saving the
// output (`saves = y`) lets the activation run in place.
//
// NaN, infinities and the sign of zero come out as in PyTorch: that includes GELU and SiLU of -inf, and their
// derivatives at +-inf, which are NaN (0 * inf). Tails are kept down to denormals where PyTorch's formulas
// lose them (GELU and SiLU of large negative numbers).
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#ifdef __CUDACC__
#define GRADFLOW_HD __host__ __device__ __forceinline__
#else
#define GRADFLOW_HD inline __attribute__((always_inline))
#endif

namespace gradflow {

enum class Saves : std::uint8_t { x, y };

enum class PointwiseId : std::uint8_t { identity, relu, tanh, sigmoid, leaky_relu, gelu, silu, softplus };

// Each op states: its name; what backward reads; whether its derivative falls to 0 on both sides (`saturated`
// then says from where on); the cost; and, if it is piecewise linear, `negative_slope`: y = x above zero and
// negative_slope * x below.
namespace ops {

// The functions that ops call, in f64.
struct StdMath {
  static double exp(double x) { return std::exp(x); }
  static double expm1(double x) { return std::expm1(x); }  // asked for x <= 0 only
  static double tanh(double x) { return std::tanh(x); }
  static double sigmoid(double x) {  // exp(-|x|) cannot overflow
    const double e = std::exp(-std::fabs(x));
    return (x < 0.0 ? e : 1.0) / (1.0 + e);
  }
  static double softplus(double x) { return (x > 0.0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x))); }
  static double normal_cdf(double x) { return 0.5 * std::erfc(x * -0.70710678118654752440); }
};

struct Identity {
  static constexpr PointwiseId id = PointwiseId::identity;
  static constexpr std::string_view name = "linear";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = false;
  static constexpr double negative_slope = 1;
  static constexpr double flops = 0;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return x; }
  template <class M, class T> static GRADFLOW_HD T backward(T, T dy) { return dy; }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

// NaN stays NaN forward; where the saved output is NaN the gradient passes, as in PyTorch.
struct Relu {
  static constexpr PointwiseId id = PointwiseId::relu;
  static constexpr std::string_view name = "relu";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = false;
  static constexpr double negative_slope = 0;
  static constexpr double flops = 1;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return x < T(0) ? T(0) : x; }
  template <class M, class T> static GRADFLOW_HD T backward(T y, T dy) { return y <= T(0) ? T(0) : dy; }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

// d tanh = 1 - y^2. Saturated: derivative below 5% of its maximum (1).
struct Tanh {
  static constexpr PointwiseId id = PointwiseId::tanh;
  static constexpr std::string_view name = "tanh";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = true;
  static constexpr double flops = 20;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return M::tanh(x); }
  template <class M, class T> static GRADFLOW_HD T backward(T y, T dy) { return dy * (T(1) - y * y); }
  template <class T> static GRADFLOW_HD bool saturated(T y) { return T(1) - y * y < T(0.05); }
};

// d sigmoid = y (1 - y). Saturated: derivative below 5% of its maximum (1/4).
struct Sigmoid {
  static constexpr PointwiseId id = PointwiseId::sigmoid;
  static constexpr std::string_view name = "sigmoid";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = true;
  static constexpr double flops = 20;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return M::sigmoid(x); }
  template <class M, class T> static GRADFLOW_HD T backward(T y, T dy) { return dy * (y * (T(1) - y)); }
  template <class T> static GRADFLOW_HD bool saturated(T y) { return y * (T(1) - y) < T(0.0125); }
};

// Slope 0.01 below zero (Maas et al. 2013). The sign of y is that of x, so y is enough for the slope.
struct LeakyRelu {
  static constexpr PointwiseId id = PointwiseId::leaky_relu;
  static constexpr std::string_view name = "leaky_relu";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = false;
  static constexpr double negative_slope = 0.01;
  static constexpr double flops = 2;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return x > T(0) ? x : x * T(negative_slope); }
  template <class M, class T> static GRADFLOW_HD T backward(T y, T dy) { return y > T(0) ? dy : dy * T(negative_slope); }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

// x P(x), P the normal distribution function: the exact form (Hendrycks & Gimpel 2016), not the one by tanh.
// d gelu = P(x) + x p(x), p the density. y does not determine x: each y in (-0.17, 0) has two.
struct Gelu {
  static constexpr PointwiseId id = PointwiseId::gelu;
  static constexpr std::string_view name = "gelu";
  static constexpr Saves saves = Saves::x;
  static constexpr bool saturates = false;
  static constexpr double flops = 35;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return x * M::normal_cdf(x); }
  template <class M, class T> static GRADFLOW_HD T backward(T x, T dy) {
    const T density = T(0.39894228040143267794) * M::exp(T(-0.5) * (x * x));
    return dy * (M::normal_cdf(x) + x * density);
  }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

// x s(x), s the sigmoid. d silu = s (1 + x (1 - s)).
struct Silu {
  static constexpr PointwiseId id = PointwiseId::silu;
  static constexpr std::string_view name = "silu";
  static constexpr Saves saves = Saves::x;
  static constexpr bool saturates = false;
  static constexpr double flops = 21;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return x * M::sigmoid(x); }
  template <class M, class T> static GRADFLOW_HD T backward(T x, T dy) {
    const T s = M::sigmoid(x);
    return dy * (s * (T(1) + x * (T(1) - s)));
  }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

// log(1 + e^x). d softplus = s(x) = 1 - e^-y, without cancellation by expm1: as y falls to 0 the derivative
// is y itself. (PyTorch returns x beyond 20, where the two differ by 2e-9.)
struct Softplus {
  static constexpr PointwiseId id = PointwiseId::softplus;
  static constexpr std::string_view name = "softplus";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = false;
  static constexpr double flops = 40;
  template <class M, class T> static GRADFLOW_HD T forward(T x) { return M::softplus(x); }
  template <class M, class T> static GRADFLOW_HD T backward(T y, T dy) { return dy * (T(0) - M::expm1(-y)); }
  template <class T> static GRADFLOW_HD bool saturated(T) { return false; }
};

template <class... Ops> struct OpList {
  static constexpr std::size_t size = sizeof...(Ops);
  // Calls f.template operator()<Op>() for every op in order.
  template <class F> static constexpr void for_each(F&& f) { (f.template operator()<Ops>(), ...); }
  // Calls f.template operator()<Op>() for the op with this id; false if there is none.
  template <class F> static constexpr bool visit(PointwiseId id, F&& f) {
    return ((Ops::id == id && (f.template operator()<Ops>(), true)) || ...);
  }
};

using All = OpList<Identity, Relu, Tanh, Sigmoid, LeakyRelu, Gelu, Silu, Softplus>;

// The same list for the preprocessor, which alone can paste a name: CUDA kernels are extern "C", so that
// a profiler shows `relu_forward_f32`. The kernels assert that the lists agree.
#define GRADFLOW_SATURATING_OPS(X) X(Tanh, tanh) X(Sigmoid, sigmoid)
#define GRADFLOW_FROM_OUTPUT_OPS(X) \
  X(Relu, relu) X(LeakyRelu, leaky_relu) X(Softplus, softplus) GRADFLOW_SATURATING_OPS(X)
#define GRADFLOW_POINTWISE_OPS(X) \
  X(Identity, linear) X(Gelu, gelu) X(Silu, silu) GRADFLOW_FROM_OUTPUT_OPS(X)

}  // namespace ops

struct PointwiseInfo {
  PointwiseId id;
  std::string_view name;
  Saves saves;
  bool saturates;
  double flops;  // per element, forward; for the plan's cost table
  std::optional<double> negative_slope;  // of a piecewise linear op
};

constexpr PointwiseInfo info_of(PointwiseId id) {
  PointwiseInfo info{};
  ops::All::visit(id, [&]<class Op>() {
    info = {Op::id, Op::name, Op::saves, Op::saturates, Op::flops, std::nullopt};
    if constexpr (requires { Op::negative_slope; }) info.negative_slope = Op::negative_slope;
  });
  return info;
}

constexpr std::optional<PointwiseId> find_pointwise(std::string_view name) {
  std::optional<PointwiseId> found;
  ops::All::for_each([&]<class Op>() { if (Op::name == name) found = Op::id; });
  return found;
}

}  // namespace gradflow
