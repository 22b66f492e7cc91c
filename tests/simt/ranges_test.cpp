// What a profiler's timeline shows of a training step: every kernel under the name of its layer and pass.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gradflow/engine/executor.h"
#include "gradflow/layers/models.h"
#include "kernels/cuda/simt.h"
#include "simt/simt_backend.h"

namespace gradflow {
namespace {

using kernels::RangeName;

// The emulated device, with what NVTX would be told.
class NamingBackend final : public kernels::cuda::SimtBackend {
 public:
  explicit NamingBackend(bool names) : names_(names) {
    ::simt::on_launch = [this](const char* kernel) {
      seen.emplace_back(open_.empty() ? "" : open_.back(), kernel);
    };
  }
  ~NamingBackend() override { ::simt::on_launch = nullptr; }

  RangeName register_range(const char* name) override {
    ++registered;
    return names_ ? known_.insert(name).first->c_str() : nullptr;
  }
  void range_begin(RangeName name) noexcept override {
    ++begun;
    open_.push_back(static_cast<const char*>(name));
  }
  void range_end() noexcept override { open_.pop_back(); }

  std::vector<std::pair<std::string, std::string>> seen;  // the innermost range, the kernel
  int registered = 0, begun = 0;
  bool all_closed() const { return open_.empty(); }

 private:
  bool names_;
  std::set<std::string> known_;
  std::vector<std::string> open_;
};

struct NamedStep {
  explicit NamedStep(bool names, int steps = 1) : device(names) {
    const Model model = build_model(parse_model("mlp:depth=3,width=8,act=relu,skip=on"),
                                    {.batch = 4, .features = 6, .classes = 3, .dtype = DType::f32});
    ParameterStore parameters(device, model.graph);
    parameters.initialize(Initializer{}, 1);
    Optimizer optimizer(parameters, {});
    ExecutorOptions options;
    options.probes.push_back({.target = ProbeTarget::value, .id = model.graph.find_value("x"), .exponents = true});
    Executor executor(model.graph, parameters, &optimizer, options);
    launches = static_cast<int>(executor.plan().launches.size());
    for (const Launch& l : executor.plan().launches) names_of_launches.insert(executor.launch_name(l));
    device.seen.clear();
    registered = device.registered;
    for (int i = 0; i < steps; ++i) executor.step();
    seen = device.seen;
  }

  NamingBackend device;
  int launches = 0, registered = 0;
  std::set<std::string> names_of_launches;
  std::vector<std::pair<std::string, std::string>> seen;
};

TEST(Ranges, EveryKernelOfAStepIsUnderItsLayersName) {
  const NamedStep run(true);
  ASSERT_FALSE(run.seen.empty());
  std::map<std::string, std::set<std::string>> kernels;
  for (const auto& [name, kernel] : run.seen) {
    EXPECT_TRUE(run.names_of_launches.contains(name)) << kernel << " is under '" << name << "'";
    kernels[name].insert(kernel);
  }
  EXPECT_TRUE(kernels["block01.relu backward"].contains("relu_backward_f32"));
  EXPECT_TRUE(kernels["block01.add+relu forward"].contains("residual_relu_forward_f32"));
  EXPECT_TRUE(run.device.all_closed());
}

TEST(Ranges, NamesAreRegisteredOnceAndNotAtEachLaunch) {
  const NamedStep run(true, 3);
  EXPECT_EQ(run.registered, run.launches);
  EXPECT_EQ(run.device.registered, run.registered);
  EXPECT_GE(run.device.begun, 3 * (run.launches - 1));
}

TEST(Ranges, WithoutNamesNothingIsPushed) {
  const NamedStep run(false, 2);
  EXPECT_EQ(run.device.begun, 0);
}

}  // namespace
}  // namespace gradflow
