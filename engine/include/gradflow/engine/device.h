// Devices by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gradflow/kernels/backend.h"

namespace gradflow {

// "cpu", "cuda", "cuda:N", or "auto" (cuda:0 if there is one, else cpu). threads: host threads, 0 = all.
// UserError naming the reason if the device is not there, or the valid names if the name is wrong.
std::unique_ptr<kernels::Backend> open_device(std::string_view name, int threads = 0);

// Throws what open_device would for a name that cannot be one, without opening anything.
void check_device_name(std::string_view name);

}  // namespace gradflow
