// Batches for a network, gathered and normalized on the device: from a data set that lies there, or handed over
// batch by batch.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gradflow/engine/augmentation.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/engine/layer.h"
#include "gradflow/engine/memory.h"

namespace gradflow {

enum class FeedPlacement : std::uint8_t {
  resident,  // the whole split on the device, as bytes: a quarter of its size as f32. A batch needs its indices alone
  streamed,  // on the host, in memory or in files; a batch's bytes are collected and copied when it is loaded, or
             // ahead of that in a thread of their own, see announce()
};

// One split of a data set. Both placements give the same bits.
class Feed {
 public:
  // With an augmentation's pixel mean, data.mean_image is taken off in every load. UserError if the images
  // are too small for its crop. A streamed feed reads the pixels and labels of `split` as long as it lives; the
  // split itself may be moved. Images in files: loading throws UserError if one cannot be read any more.
  Feed(Backend& backend, const Dataset& data, const DataSplit& split, const Augmentation& augmentation = {},
       FeedPlacement placement = FeedPlacement::resident);
  ~Feed();
  Feed(Feed&&) noexcept;
  Feed& operator=(Feed&&) noexcept;

  // Resident, if that leaves the device `reserve` bytes; streamed otherwise.
  static FeedPlacement choose(Backend& backend, const DataSplit& split, std::size_t reserve);

  FeedPlacement placement() const noexcept;
  std::size_t count() const noexcept;
  // Fills x [batch, features] and labels i32 [batch] with the samples at `indices`, each below count().
  // indices.size() is the batch of x.
  void load(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels);
  // The same, with the images shifted and mirrored as the augmentation says for this step of a run.
  void load_augmented(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels,
                      std::uint64_t seed, std::uint64_t step);
  // The same in two parts, for a step that is recorded with its inputs (Executor::set_input_launches): stage() says
  // which samples and copies that to the device, gather() queues the one launch that fills x and labels. Its pointers
  // stay the same as long as the batch does. InternalError from a streamed feed, whose samples come in two buffers by
  // turns, and from gather() without a stage() of as many samples as x takes before it.
  void stage(std::span<const std::int32_t> indices, std::uint64_t seed, std::uint64_t step);
  void gather(const Tensor& x, const Tensor& labels);
  // Samples first .. first + batch - 1, in storage order. A streamed feed goes on to collect as many behind them.
  void load_range(std::size_t first, const Tensor& x, const Tensor& labels);

  // The next load_augmented() will ask for this. A streamed feed collects it meanwhile; nothing else changes.
  void announce(std::span<const std::int32_t> indices, std::uint64_t seed, std::uint64_t step);

 private:
  struct State;
  std::unique_ptr<State> s_;
};

}  // namespace gradflow
