// The benchmark's list of cases against the kernels themselves, run on the host: each case launches what it
// names, stays within its operands, and no kernel of the CUDA module is left out.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "apps/bench/kernels/case.h"
#include "simt/harness.h"
#include "simt/kernel_names.h"

namespace gradflow::kernels::cuda {
namespace {

class BenchCases : public KernelTest {
 protected:
  BenchCases() {
    simt::on_launch = [this](const char* kernel) { launched_.push_back(kernel); };
  }
  ~BenchCases() override { simt::on_launch = nullptr; }

  // What the case launches with operands of exactly the size it asks for: nothing lies behind their ends.
  std::vector<std::string> launch(const app::KernelCase& c, std::size_t size) {
    const app::Work work = c.work(size);
    std::vector<void*> operands;
    for (const app::Operand& o : work.operands) {
      void* const at = o.elements == 0 ? nullptr : simt.allocate(o.bytes());
      if (at != nullptr) std::memset(at, 0, o.bytes());  // labels and rows in range
      operands.push_back(at);
    }
    launched_.clear();
    c.bind(simt, work, operands)();
    for (void* at : operands) simt.deallocate(at);
    return launched_;
  }

 private:
  std::vector<std::string> launched_;
};

std::vector<app::KernelCase> supported_cases(const Backend& backend) {
  std::vector<app::KernelCase> all;
  for (const DType dtype : {DType::f32, DType::bf16})
    if (backend.supports(dtype)) std::ranges::move(app::kernel_cases(dtype), std::back_inserter(all));
  return all;
}

TEST_F(BenchCases, LaunchTheKernelsTheyName) {
  for (const app::KernelCase& c : supported_cases(simt))
    for (const std::size_t size : {std::size_t{1}, std::size_t{1037}}) {
      SCOPED_TRACE(c.name + " with " + std::to_string(size));
      EXPECT_EQ(launch(c, size), c.kernels);
    }
}

#ifdef GRADFLOW_CUDA_MODULE_FILE
TEST_F(BenchCases, LeaveOutNoKernelOfTheModule) {
  std::set<std::string> benchmarked;
  for (const app::KernelCase& c : supported_cases(simt))
    benchmarked.insert(c.kernels.begin(), c.kernels.end());
  const std::set<std::string> kernels = kernel_names_in(GRADFLOW_CUDA_MODULE_FILE);
  for (const std::string& name : kernels)
    EXPECT_TRUE(benchmarked.contains(name)) << name << " has no case in apps/bench/kernels/cases_*.cpp";
  for (const std::string& name : benchmarked) EXPECT_TRUE(kernels.contains(name)) << name << " is not in the module";
}
#endif

}  // namespace
}  // namespace gradflow::kernels::cuda
