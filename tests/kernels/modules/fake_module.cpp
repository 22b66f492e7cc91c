// Stand-ins for the CUDA module, one library for each way a module can be wrong. FAKE picks it.
#include <cstdio>

#include "gradflow/kernels/backend.h"
#include "gradflow/kernels/error.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using gradflow::kernels::Backend;

constexpr int kOld = 0;        // speaks an interface that no program wants
constexpr int kThrows = 1;     // lets its own exceptions out, compiled with hidden type information
constexpr int kSilent = 2;     // refuses without a reason
constexpr int kTruncated = 3;  // has one of the two functions only

}  // namespace

EXPORT int gradflow_cuda_device_count(int version, char* error, std::size_t error_size) {
  if (FAKE == kOld && version != -7) {
    std::snprintf(error, error_size, "the CUDA module has interface -7, the program wants %d", version);
  }
  if (FAKE == kThrows) throw gradflow::UserError("thrown while counting");
  return 0;
}

#if FAKE != 3
EXPORT Backend* gradflow_cuda_open(int version, int ordinal, char* error, std::size_t error_size) {
  if (FAKE == kOld) {
    std::snprintf(error, error_size, "the CUDA module has interface -7, the program wants %d", version);
  }
  if (FAKE == kThrows && ordinal == 0) throw gradflow::UserError("thrown while opening");
  if (FAKE == kThrows) throw gradflow::InternalError("broken while opening");
  return nullptr;
}
#endif

static_assert(kTruncated == 3 && kSilent == 2);
