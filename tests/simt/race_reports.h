// The races ThreadSanitizer has reported so far, for tests to look at (build with SIMT_RACES).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace simt {

// Where the two accesses stand, the later one first: "reduce.cuh:48".
struct Race {
  std::string later, earlier;
};

std::size_t races_reported();  // since the last take_races()
std::vector<Race> take_races();

}  // namespace simt
