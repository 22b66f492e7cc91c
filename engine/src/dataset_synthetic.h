// A data set made from a formula; see dataset_synthetic.cpp.
#pragma once

#include "gradflow/engine/dataset.h"
#include "gradflow/engine/spec_text.h"

namespace gradflow {

Dataset make_synthetic(SpecReader& reader);

}  // namespace gradflow
