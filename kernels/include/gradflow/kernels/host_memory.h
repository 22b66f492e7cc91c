// What is left of the host's memory.
#pragma once

#include <cstddef>
#include <string>

namespace gradflow::kernels {

// Bytes that this process may still take: what Linux calls available and free swap, or less where a control group
// (a container, a job of a batch system) allows less; file caches count as free. The largest number where nothing is
// known. `root` stands in front of /proc and /sys, for tests.
std::size_t available_host_memory(const std::string& root = {});

}  // namespace gradflow::kernels
