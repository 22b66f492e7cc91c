// The binary files of CIFAR-10 and CIFAR-100; see dataset_cifar.cpp.
#pragma once

#include <filesystem>
#include <string_view>

#include "gradflow/engine/dataset.h"

namespace gradflow {

// `spec` for messages; classes 10 or 100.
Dataset read_cifar(std::string_view spec, const std::filesystem::path& folder, int classes);

}  // namespace gradflow
