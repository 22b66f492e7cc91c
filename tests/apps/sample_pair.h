// A made-up pair that behaves as the simulation of docs/SCIENCE.md, section 7, does: the numbers of tests of
// what judges and shows it.
#pragma once

#include "apps/study/results.h"

namespace gradflow::app {

PairResult sample_pair();

}  // namespace gradflow::app
