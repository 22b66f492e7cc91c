// Words for one-line messages: quoting what a user typed, and the nearest valid name.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace gradflow {

// 'text' in single quotes, on one line: control characters become \n, \t or \xNN and what is longer
// than `limit` bytes is cut, with "..." and the full length behind it.
std::string quote(std::string_view text, std::size_t limit = 160);

// How many single-character insertions, deletions, replacements and swaps of neighbours turn a into b
// (optimal string alignment distance). Texts longer than 64 bytes count as their longer length.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The valid name that `name` most likely meant: the smallest edit distance (first of equals), or a
// name that begins with it or that it begins with; empty if nothing is near enough to be worth suggesting.
std::string_view nearest_name(std::string_view name, std::span<const std::string> valid);

// "a, b, c"
std::string joined(std::span<const std::string> names, std::string_view separator = ", ");

}  // namespace gradflow
