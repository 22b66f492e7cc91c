// Optimizer updates: one pass over every parameter, all tensors in one parallel region.
#include <cmath>
#include <vector>

#include "functions.h"
#include "gradflow/kernels/bf16.h"
#include "gradflow/kernels/error.h"
#include "stats_lanes.h"

namespace gradflow::kernels::cpu {
namespace {

// Hyperparameters in the arithmetic's type, read at the start of every run.
template <class T>
struct Rates {
  explicit Rates(const OptimizerScalars& s)
      : learning_rate(static_cast<T>(s.learning_rate)),
        weight_decay(static_cast<T>(s.weight_decay)),
        momentum(static_cast<T>(s.momentum)),
        beta1(static_cast<T>(s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        epsilon(static_cast<T>(s.epsilon)),
        // lr * mhat / (sqrt(vhat) + eps) with mhat = m / c1, vhat = v / c2
        correction1(static_cast<T>(s.bias_correction1)),
        correction2(static_cast<T>(s.bias_correction2)) {}
  T learning_rate, weight_decay, momentum, beta1, beta2, epsilon, correction1, correction2;
};

// The loops store w_after - w_before in `change` if `measured`; what they do to w, m and v is the same either
// way.

template <OptimizerKind kind, bool measured, class T>
void sgd_loop(const Rates<T>& r, T decay, T* w, const T* dw, T* m, T* change, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) {
    const T before = w[i];
    const T g = dw[i] + decay * before;
    const T moment = r.momentum * m[i] + g;
    m[i] = moment;
    w[i] = before - r.learning_rate * (kind == OptimizerKind::nesterov ? g + r.momentum * moment : moment);
    if constexpr (measured) change[i] = w[i] - before;
  }
}

template <bool measured, class T>
void plain_sgd_loop(const Rates<T>& r, T decay, T* w, const T* dw, T* change, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) {
    const T before = w[i];
    w[i] = before - r.learning_rate * (dw[i] + decay * before);
    if constexpr (measured) change[i] = w[i] - before;
  }
}

template <OptimizerKind kind, bool measured, class T>
void adam_loop(const Rates<T>& r, T decay, T* w, const T* dw, T* m, T* v, T* change, std::size_t n) {
  const T keep1 = r.beta1, keep2 = r.beta2, new1 = T(1) - r.beta1, new2 = T(1) - r.beta2;
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) {
    const T before = w[i];
    T weight = before, g = dw[i];
    if constexpr (kind == OptimizerKind::adam)
      g += decay * weight;
    else
      weight -= r.learning_rate * decay * weight;
    const T first = keep1 * m[i] + new1 * g;
    const T second = keep2 * v[i] + new2 * (g * g);
    m[i] = first;
    v[i] = second;
    w[i] =
        weight - r.learning_rate * (first / r.correction1) / (std::sqrt(second / r.correction2) + r.epsilon);
    if constexpr (measured) change[i] = w[i] - before;
  }
}

template <class T>
void copy_rounded(const T* w, Bf16* copy, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) copy[i] = to_bf16(static_cast<float>(w[i]));
}

template <class T>
class HostUpdate final : public Update {
 public:
  HostUpdate(const Context& context, const UpdateDesc& desc, std::span<const UpdateSlice> slices)
      : context_(context), desc_(desc), slices_(slices.begin(), slices.end()) {
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      first_piece_.push_back(pieces_.size());
      for (std::size_t begin = 0; begin < slices_[s].n; begin += kPiece)
        pieces_.push_back({s, begin, std::min(kPiece, slices_[s].n - begin)});
      elements_ += slices_[s].n;
      measured_ = measured_ || slices_[s].w_stats || slices_[s].dw_stats || slices_[s].update_stats;
    }
    first_piece_.push_back(pieces_.size());
    share_out();
    if (measured_) partials_ = std::make_unique<Partial[]>(pieces_.size());
  }

  void run() override {
    const Rates<T> rates(*desc_.scalars);
    for_each_index(context_, shares_.size() - 1, elements_ >= kSerialCheap, [&](std::size_t t) {
      for (std::size_t i = shares_[t]; i < shares_[t + 1]; ++i) update(rates, i);
    });
    if (measured_)  // a few additions a piece: less than a second parallel region would cost
      for (std::size_t s = 0; s < slices_.size(); ++s) collect(s);
  }

 private:
  static constexpr std::size_t kPiece = 8192;  // elements
  struct Piece {
    std::size_t slice, begin, length;
  };
  struct Partial {
    Stats w, dw, update;
  };

  // Cuts the pieces into one run a thread, of about equal elements: a bias is a piece too, but a small one. A
  // piece belongs to the thread in whose part of the elements its middle lies.
  void share_out() {
    const std::size_t threads = static_cast<std::size_t>(context_.threads);
    std::size_t piece = 0, before = 0;
    for (std::size_t t = 0; t < threads; ++t) {
      shares_.push_back(piece);
      const std::size_t end = (t + 1) * elements_ / threads;
      for (; piece < pieces_.size() && before + pieces_[piece].length / 2 < end; ++piece) before += pieces_[piece].length;
    }
    shares_.push_back(pieces_.size());
  }

  void update(const Rates<T>& rates, std::size_t index) {
    const Piece& piece = pieces_[index];
    const UpdateSlice& slice = slices_[piece.slice];
    StatsLanes<T> w_lanes, dw_lanes, update_lanes;
    for_each_tile(piece.begin, piece.begin + piece.length, [&](std::size_t from, std::size_t to) {
      const std::size_t n = to - from;
      T* w = static_cast<T*>(slice.w) + from;
      const T* dw = static_cast<const T*>(slice.dw) + from;
      if (slice.w_stats || slice.dw_stats) prefetch_tile(slice, to);
      T change[kTile];
      if (slice.w_stats) w_lanes.add(w, n);
      if (slice.dw_stats) dw_lanes.add(dw, n);
      if (slice.update_stats) {
        step<true>(rates, slice, from, n, change);
        update_lanes.add(change, n);
      } else {
        step<false>(rates, slice, from, n, change);
      }
      if (slice.w_bf16) copy_rounded(w, static_cast<Bf16*>(slice.w_bf16) + from, n);
    });
    if (slice.w_stats) partials_[index].w = w_lanes.result();
    if (slice.dw_stats) partials_[index].dw = dw_lanes.result();
    if (slice.update_stats) partials_[index].update = update_lanes.result();
  }

  // Asks for the next tile's lines while this tile is measured: the update alone waits for memory, the
  // statistics alone keep the arithmetic busy, together they should cost the larger of the two.
  void prefetch_tile(const UpdateSlice& slice, std::size_t from) const {
    const std::size_t n = std::min(kTile, slice.n - std::min(slice.n, from));
    constexpr std::size_t kLine = 64 / sizeof(T);
    for (std::size_t i = from; i < from + n; i += kLine) {
      __builtin_prefetch(static_cast<const T*>(slice.w) + i);
      __builtin_prefetch(static_cast<const T*>(slice.dw) + i);
      if (slice.first_moment) __builtin_prefetch(static_cast<const T*>(slice.first_moment) + i);
      if (slice.second_moment) __builtin_prefetch(static_cast<const T*>(slice.second_moment) + i);
    }
  }

  template <bool measured>
  void step(const Rates<T>& rates, const UpdateSlice& slice, std::size_t from, std::size_t n, T* change) {
    T* w = static_cast<T*>(slice.w) + from;
    const T* dw = static_cast<const T*>(slice.dw) + from;
    T* m = slice.first_moment ? static_cast<T*>(slice.first_moment) + from : nullptr;
    T* v = slice.second_moment ? static_cast<T*>(slice.second_moment) + from : nullptr;
    const T decay = slice.decay ? rates.weight_decay : T(0);
    using enum OptimizerKind;
    switch (desc_.kind) {
      case sgd:
        if (!m) return plain_sgd_loop<measured>(rates, decay, w, dw, change, n);
        return sgd_loop<sgd, measured>(rates, decay, w, dw, m, change, n);
      case nesterov: return sgd_loop<nesterov, measured>(rates, decay, w, dw, m, change, n);
      case adam: return adam_loop<adam, measured>(rates, decay, w, dw, m, v, change, n);
      case adamw: return adam_loop<adamw, measured>(rates, decay, w, dw, m, v, change, n);
    }
  }

  void collect(std::size_t s) {
    const UpdateSlice& slice = slices_[s];
    for (std::size_t i = first_piece_[s]; i < first_piece_[s + 1]; ++i) {
      if (slice.w_stats) add(*slice.w_stats, partials_[i].w);
      if (slice.dw_stats) add(*slice.dw_stats, partials_[i].dw);
      if (slice.update_stats) add(*slice.update_stats, partials_[i].update);
    }
  }

  const Context& context_;
  UpdateDesc desc_;
  std::vector<UpdateSlice> slices_;
  std::vector<Piece> pieces_;
  std::vector<std::size_t> shares_;  // thread t runs pieces shares_[t] .. shares_[t + 1]
  std::vector<std::size_t> first_piece_;
  std::unique_ptr<Partial[]> partials_;
  std::size_t elements_ = 0;
  bool measured_ = false;
};

}  // namespace

std::unique_ptr<Update> make_update(const Context& context, const UpdateDesc& desc,
                                    std::span<const UpdateSlice> slices) {
  if (!desc.scalars) throw InternalError("prepare_update: the optimizer's scalars are missing");
  const bool adam = desc.kind == OptimizerKind::adam || desc.kind == OptimizerKind::adamw;
  for (const UpdateSlice& slice : slices)
    if (slice.n > 0 && (!slice.w || !slice.dw || (desc.kind != OptimizerKind::sgd && !slice.first_moment) ||
                        (adam && !slice.second_moment)))
      throw InternalError("prepare_update: a slice lacks weights, gradients or moments");
  std::unique_ptr<Update> update;
  visit_real(desc.dtype, [&]<class T>() { update = std::make_unique<HostUpdate<T>>(context, desc, slices); });
  return update;
}

}  // namespace gradflow::kernels::cpu
