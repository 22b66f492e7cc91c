// Memory for many copies of a case's operands, filled as the case asks.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "apps/bench/kernels/case.h"
#include "gradflow/engine/memory.h"

namespace gradflow::app {

// The standard normal numbers that every operand of numbers is made of, repeated one after another: what a peer takes, too.
std::vector<float> operand_numbers();

// Grows to the largest case and is used again for the next: allocating is slow. One case at a time.
class OperandPool {
 public:
  explicit OperandPool(kernels::Backend& backend) : backend_(backend) {}

  // Bytes of one set of operands; each operand begins at a multiple of 256.
  static std::size_t set_bytes(const Work& work);

  // `sets` copies of the operands: [set][operand], null where an operand has no elements. What an earlier
  // call returned is gone. Throws UserError when there is not enough memory.
  std::vector<std::vector<void*>> fill(const Work& work, std::size_t sets);

 private:
  kernels::Backend& backend_;
  DeviceMemory memory_;
  std::map<DType, std::vector<std::byte>> blocks_;  // of numbers, drawn once

  void fill_with_numbers(DType dtype, std::size_t bytes);
};

}  // namespace gradflow::app
