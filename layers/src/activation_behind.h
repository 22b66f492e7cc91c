// An activation as part of the weight layer in front of it: what Linear and Convolution share. `op` is identity
// where there is none.
//
// Forward, the host adds the bias inside its product, at no price, and the activation runs in place behind it; a
// GPU makes a product without bias and then bias and activation in one pass. Backward is one pass on both: the
// gradient in front of the activation, which takes the place of dy, and the bias gradient.
#pragma once

#include "gradflow/engine/layer.h"

namespace gradflow::behind {

// The op of `next` if a weight layer with a bias can take it in; identity otherwise.
PointwiseId op_of(const Layer& next);

// Is the bias the product's business?
bool bias_in_product(PointwiseId op, const Backend& backend);

// What the activation needs and costs besides the layer.
void add_to(Inference& layer, PointwiseId op);

// What a layer with `op` behind it measures: both sides of the activation, both ways.
FusedStats fused_stats(PointwiseId op);

// y holds the product.
void forward(ForwardContext& c, PointwiseId op);

// Writes the bias gradient, if there is a bias; returns what the product's backward takes for dy.
const void* backward(BackwardContext& c, PointwiseId op);

}  // namespace gradflow::behind
