// What one optimizer step does to one parameter, for a number or for a vector of them.
//
// V is T or a vector of T: the loop that the compiler vectorizes and the one that measures in registers share
// these lines, so statistics cannot change a weight.
#pragma once

#include <cmath>

#include "gradflow/kernels/backend.h"
#include "stats_block.h"

namespace gradflow::kernels::cpu {

// Hyperparameters in the arithmetic's type, read at the start of every run.
template <class T>
struct Rates {
  explicit Rates(const OptimizerScalars& s)
      : learning_rate(static_cast<T>(s.learning_rate)),
        weight_decay(static_cast<T>(s.weight_decay)),
        momentum(static_cast<T>(s.momentum)),
        beta1(static_cast<T>(s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        epsilon(static_cast<T>(s.epsilon)),
        correction1(static_cast<T>(s.bias_correction1)),
        correction2(static_cast<T>(s.bias_correction2)) {}
  T learning_rate, weight_decay, momentum, beta1, beta2, epsilon, correction1, correction2;
};

template <class T>
T square_root(T v) {
  return std::sqrt(v);
}
inline Floats square_root(Floats v) {
  return map(v, [](float x) { return std::sqrt(x); });
}

// Each rule says which moments it keeps, and takes the weight, its gradient and the moments before; the
// weight after is returned, the moments are replaced. `decay` is the weight decay of this tensor.

struct PlainSgd {  // momentum 0
  static constexpr int moments = 0;
  template <class T, class V>
  static V step(const Rates<T>& r, T decay, V w, V dw, V&, V&) {
    return w - r.learning_rate * (dw + decay * w);
  }
};

struct Sgd {
  static constexpr int moments = 1;
  template <class T, class V>
  static V step(const Rates<T>& r, T decay, V w, V dw, V& m, V&) {
    m = r.momentum * m + (dw + decay * w);
    return w - r.learning_rate * m;
  }
};

struct Nesterov {
  static constexpr int moments = 1;
  template <class T, class V>
  static V step(const Rates<T>& r, T decay, V w, V dw, V& m, V&) {
    const V g = dw + decay * w;
    m = r.momentum * m + g;
    return w - r.learning_rate * (g + r.momentum * m);
  }
};

// lr * mhat / (sqrt(vhat) + eps) with mhat = m / c1, vhat = v / c2.
template <class T, class V>
V adam_step(const Rates<T>& r, V weight, V g, V& m, V& v) {
  m = r.beta1 * m + (T(1) - r.beta1) * g;
  v = r.beta2 * v + (T(1) - r.beta2) * (g * g);
  return weight - r.learning_rate * (m / r.correction1) / (square_root(v / r.correction2) + r.epsilon);
}

struct Adam {
  static constexpr int moments = 2;
  template <class T, class V>
  static V step(const Rates<T>& r, T decay, V w, V dw, V& m, V& v) {
    return adam_step(r, w, dw + decay * w, m, v);
  }
};

struct AdamW {
  static constexpr int moments = 2;
  template <class T, class V>
  static V step(const Rates<T>& r, T decay, V w, V dw, V& m, V& v) {
    return adam_step(r, w - r.learning_rate * decay * w, dw, m, v);
  }
};

}  // namespace gradflow::kernels::cpu
