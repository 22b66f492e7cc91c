// The binary files of CIFAR-10 and CIFAR-100; see dataset_cifar.cpp.
#pragma once

#include <filesystem>
#include <string_view>

#include "gradflow/engine/dataset.h"

namespace gradflow {

// Not normalized, images left in the files. `spec` for messages; classes 10 or 100. UserError, one line: a file that is
// missing, has no whole number of records, a label out of range, or, if `complete`, another number of records than the
// published one (10,000; 50,000 in CIFAR-100's train.bin).
Dataset read_cifar(std::string_view spec, const std::filesystem::path& folder, int classes, bool complete);

}  // namespace gradflow
