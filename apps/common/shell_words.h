// Command lines to copy.
#pragma once

#include <string>
#include <vector>

namespace gradflow::app {

// As a POSIX shell reads it back: in quotes where it must be.
std::string shell_word(const std::string& word);

// The words, with spaces between them.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace gradflow::app
