// The median of a few measurements.
#pragma once

#include <algorithm>
#include <vector>

namespace gradflow::app {

inline double median_of(std::vector<double> numbers) {  // not empty
  std::ranges::sort(numbers);
  const std::size_t n = numbers.size();
  return n % 2 ? numbers[n / 2] : (numbers[n / 2 - 1] + numbers[n / 2]) / 2;
}

}  // namespace gradflow::app
