// Pointwise operations: one struct owns an op's name, forward, backward and what it saves.
//
// The list at the end is the only registry. The host loop, the CUDA kernel, the layer factory, the
// model specification, the gradient check, the parity test and the benchmark row follow from it, so
// adding an activation touches this file alone.
//
// `M` supplies exp, tanh, ... for the scalar type in use: correctly rounded enough and vectorizable on the
// host (kernels/cpu/vector_math.h), CUDA's own in a kernel, <cmath> for f64. Saving the output (`saves
// = y`) lets the activation run in place.
#pragma once

#include <array>
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

enum class PointwiseId : std::uint8_t { identity, relu, tanh, sigmoid };

namespace ops {

struct Identity {
  static constexpr PointwiseId id = PointwiseId::identity;
  static constexpr std::string_view name = "linear";
  static constexpr Saves saves = Saves::y;
  static constexpr bool saturates = false;
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

template <class... Ops> struct OpList {
  static constexpr std::size_t size = sizeof...(Ops);
  // Calls f.template operator()<Op>() for every op in order.
  template <class F> static constexpr void for_each(F&& f) { (f.template operator()<Ops>(), ...); }
  // Calls f.template operator()<Op>() for the op with this id; false if there is none.
  template <class F> static constexpr bool visit(PointwiseId id, F&& f) {
    return ((Ops::id == id && (f.template operator()<Ops>(), true)) || ...);
  }
};

using All = OpList<Identity, Relu, Tanh, Sigmoid>;

// The same list for the preprocessor, which alone can paste a name: CUDA kernels are extern "C", so that
// a profiler shows `relu_forward_f32`. The kernels assert that both lists have the same length.
#define GRADFLOW_POINTWISE_OPS(X) X(Identity, linear) X(Relu, relu) X(Tanh, tanh) X(Sigmoid, sigmoid)

}  // namespace ops

struct PointwiseInfo {
  PointwiseId id;
  std::string_view name;
  Saves saves;
  bool saturates;
  double flops;  // per element, forward; for the plan's cost table
};

constexpr PointwiseInfo info_of(PointwiseId id) {
  PointwiseInfo info{};
  ops::All::visit(id, [&]<class Op>() { info = {Op::id, Op::name, Op::saves, Op::saturates, Op::flops}; });
  return info;
}

constexpr std::optional<PointwiseId> find_pointwise(std::string_view name) {
  std::optional<PointwiseId> found;
  ops::All::for_each([&]<class Op>() { if (Op::name == name) found = Op::id; });
  return found;
}

}  // namespace gradflow
