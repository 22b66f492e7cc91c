#include "kernels/cuda/cudnn/staging.h"

#include "kernels/cuda/check.h"

namespace gradflow::kernels::cuda {

Staging::Staging(DeviceQueue& queue, std::initializer_list<Operand> operands)
    : queue_(queue), operands_(operands), plan_(plan_staging(operands)) {
  if (plan_.bytes == 0) return;
  room_ = static_cast<char*>(queue_.workspace(plan_.bytes));
  for (std::size_t i = 0; i < operands_.size(); ++i)
    if (plan_.places[i] != kInPlace && operands_[i].read)
      check(cudaMemcpyAsync((*this)[i], operands_[i].at, operands_[i].bytes, cudaMemcpyDeviceToDevice, queue_.stream()),
            "aligning a convolution's operand");
}

void* Staging::operator[](std::size_t operand) const {
  return plan_.places[operand] == kInPlace ? const_cast<void*>(operands_[operand].at) : room_ + plan_.places[operand];
}

void Staging::finish() {
  for (std::size_t i = 0; i < operands_.size(); ++i)
    if (plan_.places[i] != kInPlace && operands_[i].written)
      check(cudaMemcpyAsync(const_cast<void*>(operands_[i].at), (*this)[i], operands_[i].bytes, cudaMemcpyDeviceToDevice,
                            queue_.stream()),
            "taking back a convolution's result");
}

}  // namespace gradflow::kernels::cuda
