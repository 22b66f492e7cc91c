// Optimizer updates of all parameter tensors in one launch.
//
// Tensors are cut into chunks of kChunk elements; a table on the device says which tensor a chunk belongs
// to. Statistics of a tensor are added by the block that finishes its last chunk, in order of chunks.
// Bytes moved per element: SGD 12, with momentum 20; Adam and AdamW 28; 2 more for a bf16 copy of the weights.
#pragma once

#include <cstdint>

#include "gradflow/kernels/backend.h"
#include "kernels/cuda/stats.cuh"
#include "kernels/cuda/stream.cuh"

namespace gradflow::kernels::cuda {

inline constexpr std::size_t kChunk = 8192;

struct TensorOnDevice {
  float* w;
  const float* dw;
  float* m;  // null: SGD without momentum
  float* v;  // Adam's
  Bf16* copy;  // of w after the update; may be null
  Stats* w_stats;
  Stats* dw_stats;
  Stats* update_stats;
  std::size_t n;
  unsigned first_chunk, chunks;
  bool vector;  // all five are 16-byte aligned
  bool decay;
};

struct UpdateTable {
  const OptimizerScalars* scalars;
  const TensorOnDevice* tensors;
  const unsigned* tensor_of_chunk;
  StatsSet<3>* partials;  // one for each chunk; null without statistics
  unsigned* tickets;      // one for each tensor, zero between launches
  unsigned chunks;
};

struct Element {
  float w, dw, m, v;
};

template <OptimizerKind kKind>
__device__ inline void update_element(Element& e, const OptimizerScalars& s, float decay, bool momentum) {
  if constexpr (kKind == OptimizerKind::sgd || kKind == OptimizerKind::nesterov) {
    const float g = fmaf(decay, e.w, e.dw);
    e.m = momentum ? fmaf(s.momentum, e.m, g) : g;
    const bool look_ahead = kKind == OptimizerKind::nesterov && momentum;
    e.w = fmaf(-s.learning_rate, look_ahead ? fmaf(s.momentum, e.m, g) : e.m, e.w);
  } else {
    float g = e.dw;
    if constexpr (kKind == OptimizerKind::adam) {
      g = fmaf(decay, e.w, g);
    } else {
      e.w = fmaf(-(s.learning_rate * decay), e.w, e.w);
    }
    e.m = fmaf(s.beta1, e.m, (1.0f - s.beta1) * g);
    e.v = fmaf(s.beta2, e.v, (1.0f - s.beta2) * (g * g));
    const float step = s.learning_rate * (e.m / s.bias_correction1);
    e.w -= step / (sqrtf(e.v / s.bias_correction2) + s.epsilon);
  }
}

template <OptimizerKind kKind, bool kStats>
struct UpdateBody {
  static constexpr int kWidth = kPackOf<float>;
  static constexpr bool kAdam = kKind == OptimizerKind::adam || kKind == OptimizerKind::adamw;

  float* w;
  const float* dw;
  float* m;
  float* v;
  Bf16* copy;
  OptimizerScalars scalars;
  float decay;
  StatsOfFloats seen_w, seen_dw;
  StatsOfDoubles seen_update;

  template <int W>
  struct Loaded {
    Pack<W> w, dw, m, v;
  };

  template <int W>
  __device__ Loaded<W> load(std::size_t i) const {
    Loaded<W> in{};
    in.w = load_pack<W>(w + i);
    in.dw = load_pack<W>(dw + i);
    if (m != nullptr) in.m = load_pack<W>(m + i);
    if constexpr (kAdam) in.v = load_pack<W>(v + i);
    return in;
  }

  template <int W>
  __device__ void store(std::size_t i, const Loaded<W>& in) {
    Loaded<W> out{};
#pragma unroll
    for (int k = 0; k < W; ++k) {
      Element e{in.w.v[k], in.dw.v[k], in.m.v[k], in.v.v[k]};
      update_element<kKind>(e, scalars, decay, m != nullptr);
      out.w.v[k] = e.w;
      out.m.v[k] = e.m;
      out.v.v[k] = e.v;
      if constexpr (kStats) {
        seen_update.add(static_cast<double>(e.w) - static_cast<double>(in.w.v[k]));
      }
    }
    if constexpr (kStats) {
      seen_w.add(in.w);
      seen_dw.add(in.dw);
    }
    store_pack(w + i, out.w);
    if (copy != nullptr) store_pack(copy + i, out.w);
    if (m != nullptr) store_pack(m + i, out.m);
    if constexpr (kAdam) store_pack(v + i, out.v);
  }
};

// Called by the whole block after its chunk's partial is known; adds to the sinks when it was the last.
__device__ inline void finish_chunk(const UpdateTable& table, unsigned chunk, const TensorOnDevice& t,
                                    StatsSet<3> seen) {
  seen = block_reduce(seen);
  if (threadIdx.x == 0) table.partials[chunk] = seen;
  if (!last_block(table.tickets + table.tensor_of_chunk[chunk], t.chunks)) return;
  seen = {};
  for (unsigned c = threadIdx.x; c < t.chunks; c += blockDim.x) seen.merge(table.partials[t.first_chunk + c]);
  seen = block_reduce(seen);
  if (threadIdx.x != 0) return;
  seen.of[0].add_to(t.w_stats, t.n);
  seen.of[1].add_to(t.dw_stats, t.n);
  seen.of[2].add_to(t.update_stats, t.n);
}

template <OptimizerKind kKind, bool kStats>
__device__ inline void update_tensors(const UpdateTable& table) {
  const OptimizerScalars scalars = *table.scalars;
  for (unsigned chunk = blockIdx.x; chunk < table.chunks; chunk += gridDim.x) {
    const TensorOnDevice& t = table.tensors[table.tensor_of_chunk[chunk]];
    const std::size_t first = (chunk - t.first_chunk) * kChunk;
    const std::size_t left = t.n - first;
    const std::size_t n = left < kChunk ? left : kChunk;
    UpdateBody<kKind, kStats> body{t.w + first,
                                   t.dw + first,
                                   t.m != nullptr ? t.m + first : nullptr,
                                   t.v != nullptr ? t.v + first : nullptr,
                                   t.copy != nullptr ? t.copy + first : nullptr,
                                   scalars,
                                   t.decay ? scalars.weight_decay : 0.0f,
                                   {},
                                   {},
                                   {}};
    constexpr int kUnroll = kStats ? 1 : 2;
    if (t.vector) {
      constexpr int kWidth = decltype(body)::kWidth;
      stream_packs<kWidth, kUnroll>(n / kWidth, threadIdx.x, blockDim.x, body);
      const std::size_t tail = n / kWidth * kWidth + threadIdx.x;
      if (tail < n) body.template store<1>(tail, body.template load<1>(tail));
    } else {
      stream_packs<1, kUnroll>(n, threadIdx.x, blockDim.x, body);
    }
    if constexpr (kStats) {
      finish_chunk(table, chunk, t,
                   {{body.seen_w.partial(), body.seen_dw.partial(), body.seen_update.partial()}});
    }
  }
}

// sgd_update_f32, sgd_update_stats_f32 and so on.
#define GRADFLOW_UPDATE_KERNELS(kind)                                                                  \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) kind##_update_f32(UpdateTable t) {       \
    update_tensors<OptimizerKind::kind, false>(t);                                                     \
  }                                                                                                    \
  extern "C" __global__ void __launch_bounds__(kBlockThreads) kind##_update_stats_f32(UpdateTable t) { \
    update_tensors<OptimizerKind::kind, true>(t);                                                      \
  }
GRADFLOW_UPDATE_KERNELS(sgd)
GRADFLOW_UPDATE_KERNELS(nesterov)
GRADFLOW_UPDATE_KERNELS(adam)
GRADFLOW_UPDATE_KERNELS(adamw)
#undef GRADFLOW_UPDATE_KERNELS

}  // namespace gradflow::kernels::cuda
