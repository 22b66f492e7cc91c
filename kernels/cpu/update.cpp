// Optimizer updates: one pass over every parameter, all tensors in one parallel region.
#include <vector>

#include "functions.h"
#include "gradflow/kernels/bf16.h"
#include "gradflow/kernels/error.h"
#include "stats_lanes.h"
#include "update_rules.h"

namespace gradflow::kernels::cpu {
namespace {

// One tensor's part of a step, from its first element here.
template <class T>
struct Operands {
  T* w;
  const T* dw;
  T* m;
  T* v;
};

// w_after - w_before goes to `change` if `measured`; what happens to w, m and v is the same either way.
template <class Rule, bool measured, class T>
void update_loop(const Rates<T>& r, T decay, const Operands<T>& p, T* change, std::size_t n) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < n; ++i) {
    const T before = p.w[i];
    T m{}, v{};
    if constexpr (Rule::moments > 0) m = p.m[i];
    if constexpr (Rule::moments > 1) v = p.v[i];
    const T after = Rule::step(r, decay, before, p.dw[i], m, v);
    if constexpr (Rule::moments > 0) p.m[i] = m;
    if constexpr (Rule::moments > 1) p.v[i] = v;
    p.w[i] = after;
    if constexpr (measured) change[i] = after - before;
  }
}

template <class T>
struct UpdateLanes {
  StatsLanes<T> w, dw, change;
};

// The same for kBlock numbers, measured in registers: an update waits for memory anyway. The copy of w, for
// blocks that are read again, is half of what measuring costs here: with stores that wait for memory before
// it in the queue, one more takes longer than all sums. Measuring a block first and updating it, or the one
// before it, afterwards needs no copy and costs still more.
constexpr int kUpdateAccumulators = 2;
constexpr std::size_t kUpdateRow = kUpdateAccumulators * kVector;
constexpr std::size_t kAhead = 512;  // numbers; beyond a tensor's end too, where a prefetch does no harm

template <class Rule, Small small>
void measured_block(const Rates<float>& r, float decay, const Operands<float>& p, std::size_t n,
                    UpdateLanes<float>& lanes) {
  BlockRegisters<kUpdateAccumulators> w_block;
  BlockRegisters<kUpdateAccumulators, small> dw_block, change_block;
  alignas(64) float before[kBlock], change[kBlock];
  for_each_vector(
      n,
      [&](std::size_t at, int j) __attribute__((always_inline)) {
        // What is measured of one line takes as long as memory needs for the next: ask for it early.
        __builtin_prefetch(p.w + at + kAhead, 1);
        __builtin_prefetch(p.dw + at + kAhead);
        if constexpr (Rule::moments > 0) __builtin_prefetch(p.m + at + kAhead, 1);
        if constexpr (Rule::moments > 1) __builtin_prefetch(p.v + at + kAhead, 1);
        const Floats w = load(p.w + at), dw = load(p.dw + at);
        Floats m{}, v{};
        if constexpr (Rule::moments > 0) m = load(p.m + at);
        if constexpr (Rule::moments > 1) v = load(p.v + at);
        const Floats after = Rule::step(r, decay, w, dw, m, v);
        if constexpr (Rule::moments > 0) store(p.m + at, m);
        if constexpr (Rule::moments > 1) store(p.v + at, v);
        store(p.w + at, after);
        store(before + at, w);
        w_block.add(w, j);
        dw_block.add(dw, j);
        change_block.add(after - w, j);
      },
      w_block, dw_block, change_block);
  lanes.w.add_block(w_block.sums(), before, n);
  lanes.dw.add_block(dw_block.sums(), p.dw, n);
  lanes.change.add_block(change_block.sums(), n, [&] {
    for (std::size_t i = 0; i < n; ++i) change[i] = p.w[i] - before[i];
    return change;
  });
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
      for (; piece < pieces_.size() && before + pieces_[piece].length / 2 < end; ++piece)
        before += pieces_[piece].length;
    }
    shares_.push_back(pieces_.size());
  }

  void update(const Rates<T>& rates, std::size_t index) {
    const Piece& piece = pieces_[index];
    const UpdateSlice& slice = slices_[piece.slice];
    using enum OptimizerKind;
    switch (desc_.kind) {
      case sgd:
        if (slice.first_moment)
          update<Sgd>(rates, index);
        else
          update<PlainSgd>(rates, index);
        break;
      case nesterov: update<Nesterov>(rates, index); break;
      case adam: update<Adam>(rates, index); break;
      case adamw: update<AdamW>(rates, index); break;
    }
    if (slice.w_bf16)
      copy_rounded(static_cast<const T*>(slice.w) + piece.begin,
                   static_cast<Bf16*>(slice.w_bf16) + piece.begin, piece.length);
  }

  template <class Rule>
  void update(const Rates<T>& rates, std::size_t index) {
    const Piece& piece = pieces_[index];
    const UpdateSlice& slice = slices_[piece.slice];
    const T decay = slice.decay ? rates.weight_decay : T(0);
    if (!slice.w_stats && !slice.dw_stats && !slice.update_stats) {
      T* const unmeasured = nullptr;
      return update_loop<Rule, false>(rates, decay, operands(slice, piece.begin), unmeasured, piece.length);
    }

    // All three are measured where one is wanted: who measures updates wants all of them.
    UpdateLanes<T> lanes;
    std::size_t begin = piece.begin;
    const std::size_t end = begin + piece.length;
    if constexpr (std::is_same_v<T, float>)
      while (end - begin >= kUpdateRow) {
        const std::size_t n = std::min(kBlock, (end - begin) / kUpdateRow * kUpdateRow);
        if (lanes.dw.expects_zeros())
          measured_block<Rule, Small::counted>(rates, decay, operands(slice, begin), n, lanes);
        else
          measured_block<Rule, Small::noticed>(rates, decay, operands(slice, begin), n, lanes);
        begin += n;
      }
    for_each_tile(begin, end, [&](std::size_t from, std::size_t to) {
      const std::size_t n = to - from;
      const Operands<T> p = operands(slice, from);
      T change[kTile];
      lanes.w.add(p.w, n);
      lanes.dw.add(p.dw, n);
      update_loop<Rule, true>(rates, decay, p, change, n);
      lanes.change.add(change, n);
    });
    if (slice.w_stats) partials_[index].w = lanes.w.result();
    if (slice.dw_stats) partials_[index].dw = lanes.dw.result();
    if (slice.update_stats) partials_[index].update = lanes.change.result();
  }

  static Operands<T> operands(const UpdateSlice& slice, std::size_t from) {
    T* m = static_cast<T*>(slice.first_moment);
    T* v = static_cast<T*>(slice.second_moment);
    return {static_cast<T*>(slice.w) + from, static_cast<const T*>(slice.dw) + from, m ? m + from : nullptr,
            v ? v + from : nullptr};
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
