#include "apps/study/run_networks.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "apps/study/network_study.h"
#include "gradflow/engine/interrupt.h"

namespace gradflow::app {
namespace {

// What the workers share: the next network to take, what came out, and how far all are.
class Queue {
 public:
  Queue(const StudyOptions& options, const std::vector<NetworkChoice>& choices, const Dataset& data, const StudyProgress& progress)
      : options_(options), choices_(choices), data_(data), progress_(progress), results_(choices.size()), shares_(choices.size()) {
    for (const NetworkChoice& c : choices) work_ += c.depth;  // the yardstick is a small part
  }

  // Takes networks until there is none left, an interrupt came, or another worker failed.
  void work(kernels::Backend& backend) {
    try {
      Feed train(backend, data_, data_.train), test(backend, data_, data_.test);
      for (std::size_t i = next_++; i < choices_.size() && !interrupted() && !failed_; i = next_++)
        results_[i] = study_network(options_, choices_[i], backend, {data_, train, test}, [&](double share) { tick(i, share); });
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  std::vector<NetworkResult> take() {
    if (error_) std::rethrow_exception(error_);
    std::vector<NetworkResult> finished;
    for (auto& result : results_)
      if (result && !result->moments.empty()) finished.push_back(std::move(*result));
    return finished;
  }

 private:
  const StudyOptions& options_;
  const std::vector<NetworkChoice>& choices_;
  const Dataset& data_;
  const StudyProgress& progress_;
  std::vector<std::optional<NetworkResult>> results_;
  std::vector<double> shares_;  // by network: how much of it is done
  double work_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
  std::mutex mutex_;

  void tick(std::size_t i, double share) {
    const std::lock_guard lock(mutex_);
    shares_[i] = share;
    double done = 0;
    for (std::size_t k = 0; k < shares_.size(); ++k) done += shares_[k] * choices_[k].depth;
    progress_(done / work_, choices_[i].title);
  }
};

}  // namespace

int networks_at_a_time(const kernels::Backend& backend) {
  constexpr int kMost = 8;  // each holds the images, and most machines have no more bandwidth to share
  return backend.is_host() ? std::clamp(backend.info().threads, 1, kMost) : 1;
}

std::vector<NetworkResult> run_networks(const StudyOptions& options, const std::vector<NetworkChoice>& choices,
                                        kernels::Backend& backend, const Dataset& data, const StudyProgress& progress) {
  Queue queue(options, choices, data, progress);
  if (backend.is_host()) {
    std::vector<std::jthread> workers;
    const int most = std::min(networks_at_a_time(backend), static_cast<int>(choices.size()));
    for (int w = 0; w < most; ++w)
      workers.emplace_back([&queue] { queue.work(*kernels::open_cpu(1)); });
  } else {
    queue.work(backend);
  }
  return queue.take();
}

}  // namespace gradflow::app
