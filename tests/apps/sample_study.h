// A made-up study with every kind of network a real one meets, for tests of what shows results: 24 networks of 50
// layers and the shallow yardstick, with norms that follow the mean-field recursions, vanishing and
// exploding ones, and one that diverges with NaNs.
#pragma once

#include "apps/study/results.h"

namespace gradflow::app {

StudyResult sample_study();

}  // namespace gradflow::app
