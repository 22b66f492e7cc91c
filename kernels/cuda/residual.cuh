// Residual addition, forward and backward, with gates read from device memory.
// Bytes moved per element: forward 12; backward 12, plus 4 for each accumulated output.
#pragma once

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/stats.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

// What to do with one gradient output.
struct GradientOut {
  float* to;
  GradMode mode;
};

template <bool kStats>
struct ResidualForwardBody {
  const float* skip;
  const float* branch;
  float* y;
  float skip_factor, branch_factor;
  StatsOfFloats seen_y;

  template <int W>
  struct Loaded {
    Pack<W> skip, branch;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    return {load_pack<W>(skip + i), load_pack<W>(branch + i)};
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    Pack<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      out.v[k] = fmaf(skip_factor, in.skip.v[k], branch_factor * in.branch.v[k]);
      if constexpr (kStats) seen_y.add(out.v[k]);
    }
    store_pack(y + i, out);
  }
};

template <bool kStats>
__device__ inline void residual_forward(const float* skip, const float* branch, float* y, const Gates* gates,
                                        double scale, std::size_t n, bool vector, Stats* y_stats,
                                        const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->forward_branch * scale);
  ResidualForwardBody<kStats> body{skip, branch, y, gates->forward_skip, branch_factor, {}};
  stream_over<kStats ? 1 : 2>(n, vector, body);
  if constexpr (kStats) {
    StatsPartial seen = body.seen_y.partial();
    if (grid_reduce(seen, scratch)) seen.add_to(y_stats, n);
  }
}

template <bool kStats>
struct ResidualBackwardBody {
  const float* dy;
  GradientOut skip, branch;
  float skip_factor, branch_factor;
  StatsOfFloats seen_dy;

  template <int W>
  struct Loaded {
    Pack<W> dy, dskip, dbranch;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    Loaded<W> in;
    in.dy = load_pack<W>(dy + i);
    if (skip.mode == GradMode::accumulate) in.dskip = load_pack<W>(skip.to + i);
    if (branch.mode == GradMode::accumulate) in.dbranch = load_pack<W>(branch.to + i);
    return in;
  }

  template <int W>
  static __device__ void write(const GradientOut& out, std::size_t i, float factor, const Pack<W>& dy,
                               const Pack<W>& old) {
    if (out.mode == GradMode::none) return;
    Pack<W> d;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      d.v[k] = out.mode == GradMode::accumulate ? fmaf(factor, dy.v[k], old.v[k]) : factor * dy.v[k];
    }
    store_pack(out.to + i, d);
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    if constexpr (kStats) {
#pragma unroll
      for (int k = 0; k < W; ++k) seen_dy.add(in.dy.v[k]);
    }
    write(skip, i, skip_factor, in.dy, in.dskip);
    write(branch, i, branch_factor, in.dy, in.dbranch);
  }
};

template <bool kStats>
__device__ inline void residual_backward(const float* dy, GradientOut skip, GradientOut branch,
                                         const Gates* gates, double scale, std::size_t n, bool vector,
                                         Stats* dy_stats, const ReductionScratch& scratch) {
  const auto branch_factor = static_cast<float>(gates->backward_branch * scale);
  ResidualBackwardBody<kStats> body{dy, skip, branch, gates->backward_skip, branch_factor, {}};
  stream_over<kStats ? 1 : 2>(n, vector, body);
  if constexpr (kStats) {
    StatsPartial seen = body.seen_dy.partial();
    if (grid_reduce(seen, scratch)) seen.add_to(dy_stats, n);
  }
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    residual_forward_f32(const float* skip, const float* branch, float* y, const Gates* gates, double scale,
                         std::size_t n, bool vector) {
  residual_forward<false>(skip, branch, y, gates, scale, n, vector, nullptr, {});
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    residual_forward_stats_f32(const float* skip, const float* branch, float* y, const Gates* gates,
                               double scale, std::size_t n, bool vector, Stats* y_stats,
                               ReductionScratch scratch) {
  residual_forward<true>(skip, branch, y, gates, scale, n, vector, y_stats, scratch);
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    residual_backward_f32(const float* dy, GradientOut skip, GradientOut branch, const Gates* gates,
                          double scale, std::size_t n, bool vector) {
  residual_backward<false>(dy, skip, branch, gates, scale, n, vector, nullptr, {});
}

extern "C" __global__ void __launch_bounds__(kBlockThreads)
    residual_backward_stats_f32(const float* dy, GradientOut skip, GradientOut branch, const Gates* gates,
                                double scale, std::size_t n, bool vector, Stats* dy_stats,
                                ReductionScratch scratch) {
  residual_backward<true>(dy, skip, branch, gates, scale, n, vector, dy_stats, scratch);
}

}  // namespace gradflow::kernels::cuda
