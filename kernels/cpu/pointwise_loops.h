// The inner loops of pointwise layers, over a tile.
//
// They may run in place, element by element: `ivdep` tells the compiler that no iteration reads
// what an earlier one wrote, which its own overlap test would have to deny when the pointers are equal.
#pragma once

#include <cstddef>

#include "vector_math.h"

namespace gradflow::kernels::cpu {

template <class Op, class T>
void forward_loop(const T* x, T* y, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) y[i] = Op::template forward<Math<T>>(x[i]);
}

template <class Op, class T>
void backward_loop(const T* saved, const T* dy, T* dx, std::size_t n, bool accumulate) {
  if (accumulate) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] += Op::template backward<Math<T>>(saved[i], dy[i]);
  } else {
#pragma GCC ivdep
    for (std::size_t i = 0; i < n; ++i) dx[i] = Op::template backward<Math<T>>(saved[i], dy[i]);
  }
}

}  // namespace gradflow::kernels::cpu
