// The names of the kernels in a program or module. They stand there as text, each ended by a zero: every launch site
// has one, and so has the table by which kernels or functions are found.
#pragma once

#include <cctype>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace gradflow::kernels::cuda {

// The linker keeps one copy of a text and of what it ends with: relu_... may be found as a part of leaky_relu_... only.
inline std::set<std::string> kernel_names_in(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::set<std::string> names;
  std::string word;
  for (std::istreambuf_iterator<char> at(file), end; at != end; ++at) {
    const auto c = static_cast<unsigned char>(*at);
    if (std::islower(c) || std::isdigit(c) || c == '_') {
      word += *at;
      continue;
    }
    if (c == '\0' && word.size() > 6 && (word.ends_with("_f32") || word.ends_with("_bf16"))) names.insert(word);
    word.clear();
  }
  return names;
}

}  // namespace gradflow::kernels::cuda
