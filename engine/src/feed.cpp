#include "gradflow/engine/feed.h"

#include <fmt/format.h>

#include <numeric>
#include <optional>

#include "batch_gather.h"
#include "batch_stream.h"
#include "gradflow/kernels/error.h"
#include "image_source.h"

namespace gradflow {

namespace {

std::size_t label_bytes(const DataSplit& split) { return split.labels.size() * sizeof(split.labels[0]); }

}  // namespace

struct Feed::State {
  // The split's bytes on the device.
  struct Resident {
    DeviceMemory images, labels, indices, crops;
    std::vector<std::int8_t> host_crops;

    Resident(Backend& backend, const DataSplit& split)
        : images(backend, split.image_bytes()), labels(backend, label_bytes(split)) {
      std::size_t done = 0;
      visit_images(split, [&](std::span<const std::uint8_t> pixels) {
        backend.copy_in(images.at(done), pixels.data(), pixels.size());
        done += pixels.size();
      });
      backend.copy_in(labels.data(), split.labels.data(), label_bytes(split));
    }

    static void copy(Backend& backend, const void* from, std::size_t bytes, DeviceMemory& to) {
      if (to.bytes() < bytes) to = DeviceMemory(backend, bytes);
      backend.copy_in(to.data(), from, bytes);
    }

    void stage(const BatchGather& gather, const BatchRequest& r) {
      Backend& backend = gather.backend();
      copy(backend, r.indices.data(), r.indices.size() * sizeof(std::int32_t), indices);
      if (r.moved) {
        host_crops.resize(3 * r.indices.size());
        draw_crops(gather.augmentation(), r.seed, r.step, host_crops);
        copy(backend, host_crops.data(), host_crops.size(), crops);
      }
    }

    // The samples staged last.
    void fill(const BatchGather& gather, const BatchRequest& r, const Tensor& x, const Tensor& y) {
      gather.run({.images = images.as<std::uint8_t>(),
                  .labels = labels.as<std::uint16_t>(),
                  .indices = indices.as<std::int32_t>(),
                  .crops = r.moved ? crops.as<std::int8_t>() : nullptr},
                 x, y);
    }
  };

  BatchGather gather;
  std::size_t count;
  std::optional<Resident> resident;  // one of the two
  std::optional<BatchStream> stream;
  BatchRequest request;  // kept for its memory

  State(Backend& backend, const Dataset& data, const DataSplit& split, const Augmentation& augmentation, FeedPlacement placement)
      : gather(backend, data, augmentation), count(split.count()) {
    if (placement == FeedPlacement::resident)
      resident.emplace(backend, split);
    else
      stream.emplace(gather, split);
  }

  void load(const Tensor& x, const Tensor& labels) {
    if (!resident) return stream->load(request, x, labels);
    gather.check(request.indices.size(), x, labels);
    resident->stage(gather, request);
    resident->fill(gather, request, x, labels);
  }
};

Feed::Feed(Backend& backend, const Dataset& data, const DataSplit& split, const Augmentation& augmentation, FeedPlacement placement)
    : s_(std::make_unique<State>(backend, data, split, augmentation, placement)) {}
Feed::~Feed() = default;
Feed::Feed(Feed&&) noexcept = default;
Feed& Feed::operator=(Feed&&) noexcept = default;

FeedPlacement Feed::choose(Backend& backend, const DataSplit& split, std::size_t reserve) {
  const std::size_t bytes = split.image_bytes() + label_bytes(split), free = backend.available_bytes();
  return free >= reserve && bytes <= free - reserve ? FeedPlacement::resident : FeedPlacement::streamed;
}

FeedPlacement Feed::placement() const noexcept {
  return s_->resident ? FeedPlacement::resident : FeedPlacement::streamed;
}
std::size_t Feed::count() const noexcept { return s_->count; }

void Feed::load(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels) {
  s_->request.indices.assign(indices.begin(), indices.end());
  s_->request.moved = false, s_->request.seed = s_->request.step = 0;
  s_->load(x, labels);
}

void Feed::load_augmented(std::span<const std::int32_t> indices, const Tensor& x, const Tensor& labels,
                          std::uint64_t seed, std::uint64_t step) {
  if (!s_->gather.augmentation().moves()) return load(indices, x, labels);
  s_->request.indices.assign(indices.begin(), indices.end());
  s_->request.moved = true, s_->request.seed = seed, s_->request.step = step;
  s_->load(x, labels);
}

void Feed::stage(std::span<const std::int32_t> indices, std::uint64_t seed, std::uint64_t step) {
  if (!s_->resident) throw InternalError("a streamed feed has nothing to stage");
  const bool moved = s_->gather.augmentation().moves();
  s_->request.indices.assign(indices.begin(), indices.end());
  s_->request.moved = moved, s_->request.seed = moved ? seed : 0, s_->request.step = moved ? step : 0;
  s_->resident->stage(s_->gather, s_->request);
}

void Feed::gather(const Tensor& x, const Tensor& labels) {
  const std::size_t batch = x.shape().rank() ? static_cast<std::size_t>(x.shape()[0]) : 0;
  if (!s_->resident || s_->request.indices.size() != batch)
    throw InternalError(fmt::format("gather() of {} samples: {} were staged", batch, s_->resident ? s_->request.indices.size() : 0));
  s_->resident->fill(s_->gather, s_->request, x, labels);
}

void Feed::announce(std::span<const std::int32_t> indices, std::uint64_t seed, std::uint64_t step) {
  if (!s_->stream) return;
  const bool moved = s_->gather.augmentation().moves();
  s_->stream->request({.indices = {indices.begin(), indices.end()}, .moved = moved, .seed = moved ? seed : 0, .step = moved ? step : 0});
}

void Feed::load_range(std::size_t first, const Tensor& x, const Tensor& labels) {
  const std::size_t batch = x.shape().rank() ? static_cast<std::size_t>(x.shape()[0]) : 0;
  if (batch > s_->count || first > s_->count - batch)
    throw UserError(fmt::format("samples {} to {} of {}", first, first + batch, s_->count));
  const auto range = [&](std::size_t begin) {
    s_->request.indices.resize(batch);
    std::iota(s_->request.indices.begin(), s_->request.indices.end(), static_cast<std::int32_t>(begin));
    s_->request.moved = false, s_->request.seed = s_->request.step = 0;
  };
  range(first);
  s_->load(x, labels);
  if (!s_->stream || first + 2 * batch > s_->count) return;
  range(first + batch);
  s_->stream->request(s_->request);
}

}  // namespace gradflow
