// Updates of parameters. The rules of every call stand in kernels/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradflow/kernels/dtype.h"
#include "gradflow/kernels/stats.h"

namespace gradflow::kernels {

// Lies in device memory, so that a recorded step sees new values without being recorded again.
struct OptimizerScalars {
  float learning_rate = 0;
  float weight_decay = 0;
  float momentum = 0;         // SGD
  float beta1 = 0, beta2 = 0; // Adam, AdamW
  float epsilon = 0;
  float bias_correction1 = 1; // 1 - beta1^t
  float bias_correction2 = 1; // 1 - beta2^t
};

enum class OptimizerKind : std::uint8_t {
  sgd,       // g = dw + wd*w; m = momentum*m + g; w -= lr*m          (first_moment null if momentum 0)
  nesterov,  // g, m as above; w -= lr*(g + momentum*m)
  adam,      // g = dw + wd*w; Kingma & Ba 2015 with bias correction; w -= lr*mhat/(sqrt(vhat)+eps)
  adamw,     // w -= lr*wd*w first, decay kept out of g; Loshchilov & Hutter 2019
};

struct UpdateSlice {  // one parameter tensor
  std::size_t n = 0;
  void* w = nullptr;
  const void* dw = nullptr;
  void* first_moment = nullptr;   // momentum buffer or m; zeros at the start
  void* second_moment = nullptr;  // Adam's v
  bool decay = true;              // false: weight_decay is taken as 0 for this tensor
  Stats* w_stats = nullptr;       // of w before the update
  Stats* dw_stats = nullptr;
  Stats* update_stats = nullptr;  // of w_after - w_before (what was stored, rounding included)
  void* w_bf16 = nullptr;         // [n] bf16 copy of w_after for the next step, written in the same pass; w,
                                  // dw and the moments stay f32 (f64): w is the master copy
};

struct UpdateDesc {
  OptimizerKind kind = OptimizerKind::sgd;
  DType dtype = DType::f32;
  const OptimizerScalars* scalars = nullptr;
};

// Updates of one or many tensors, prepared once (one launch on CUDA), run every step.
class Update {
 public:
  virtual ~Update() = default;
  virtual void run() = 0;
};

}  // namespace gradflow::kernels
