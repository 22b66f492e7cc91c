// A data set made from a formula; see dataset_synthetic.cpp.
#pragma once

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/spec_text.h"

namespace gradflow {

// Without `make_images` as outline_dataset() has it.
Dataset make_synthetic(SpecReader& reader, bool make_images);

}  // namespace gradflow
