// What values options of the command line take, for CLI::Option::check: each check says what is wrong with a text
// and what would be right, and nothing if it is right. The text is judged as it was typed: the parser's own
// conversions cut numbers that are too large, and say so in words of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace gradflow::app {

using OptionCheck = std::function<std::string(const std::string&)>;

inline constexpr std::uint64_t kMostSamples = std::uint64_t{1} << 24;  // of a step
inline constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 40;    // more than any run, and no sum overflows

// "'-1' is not a whole number from 1 to 10"
OptionCheck whole_number(std::uint64_t min, std::uint64_t max = std::numeric_limits<std::uint64_t>::max());

// "'nan' is not a number of 0 or more"
OptionCheck finite_number_from_0();

// "'ful' is none of auto, full, off; did you mean 'full'?"
OptionCheck one_of(std::vector<std::string> names);

// A number of bytes, "6GiB" or "500 kb", powers of 1024 all: becomes "6442450944", or the fault is returned as above.
// For CLI::Validator and CLI::Option::transform.
std::string size_to_bytes(std::string& text);

}  // namespace gradflow::app
