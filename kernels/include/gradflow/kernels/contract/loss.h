// The loss and its gradient. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"

namespace gradflow::kernels {

// In device memory, ADDED to by every loss launch and by nothing else.
struct LossResult {
  double loss_sum = 0;         // sum over rows of -log softmax(logits)[label]
  std::uint64_t rows = 0;
  std::uint64_t correct = 0;   // rows whose largest logit is the label's (ties: lowest index wins;
                               // a row holding NaN is never correct)
};

struct SoftmaxCrossEntropy {  // stable: log-sum-exp with the row maximum taken out
  DType dtype = DType::f32;
  std::size_t rows = 0, classes = 0;
  const void* logits = nullptr;         // [rows, classes]
  const std::int32_t* labels = nullptr; // [rows], each in [0, classes)
  void* dlogits = nullptr;              // (softmax - onehot)/rows, the gradient of the mean loss; null
                                        // in evaluation. May alias logits.
  LossResult* result = nullptr;
};

}  // namespace gradflow::kernels
