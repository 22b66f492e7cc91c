// The images of an IDX file, read as they are wanted; see idx.h for the format.
#pragma once

#include <filesystem>
#include <memory>

#include "gradflow/engine/idx.h"
#include "image_source.h"

namespace gradflow {

// Null if the file cannot be read at any place: compressed, or a pipe. UserError for every fault that
// read_idx_images() finds in a file that is not compressed; only its header and its length are looked at.
std::shared_ptr<const ImageSource> open_idx_images(const std::filesystem::path& path);

}  // namespace gradflow
