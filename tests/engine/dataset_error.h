// What a data set's description is refused with.
#pragma once

#include <string>

#include "engine/temp_dir.h"
#include "gradflow/engine/dataset.h"

namespace gradflow::test {

inline std::string load_error(const std::string& spec) {
  return user_error([&] { load_dataset(spec); });
}

}  // namespace gradflow::test
