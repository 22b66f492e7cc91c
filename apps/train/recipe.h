// Published recipes: settings for whatever the command line leaves open.
#pragma once

#include "apps/train/settings.h"

namespace gradflow::app {

// Fills in what `options.recipe` says of the options not given. "he2015" is section 4.2 of He et al. 2015
// (1512.03385): SGD with momentum 0.9, weight decay 1e-4 (on weights; biases and norms have none here, the
// paper does not say), batches of 128, rate 0.1 divided by 10 at 32,000 and 48,000 of 64,000 steps, the
// standard augmentation, and for networks of 110 layers and more a warm-up at rate 0.01, then 0.1: theirs lasts until
// the training error is below 80 %, "about 400 iterations", here it is 400 steps.
// UserError for another name.
TrainOptions with_recipe(TrainOptions options);

}  // namespace gradflow::app
