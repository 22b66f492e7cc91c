// oneDNN takes its thread count from OpenMP's setting of the calling thread: set for as long as this lives.
#pragma once

#include <omp.h>

namespace gradflow::kernels::cpu {

class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) {
    if (threads != before_) omp_set_num_threads(threads);
    changed_ = threads != before_;
  }
  ~ThreadCount() {
    if (changed_) omp_set_num_threads(before_);
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
  bool changed_ = false;
};

}  // namespace gradflow::kernels::cpu
