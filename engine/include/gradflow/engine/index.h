// Graph and plan number nodes, values and launches with int, -1 for none; containers count with std::size_t.
#pragma once

#include <cstddef>

namespace gradflow {

constexpr std::size_t at(int i) noexcept { return static_cast<std::size_t>(i); }

}  // namespace gradflow
