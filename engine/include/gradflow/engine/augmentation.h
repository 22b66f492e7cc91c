// How training images are varied, from a short text:
//
//   none
//   standard[:crop=4,flip=on,mean=pixel]
//
// `standard` is what He et al. 2015 (1512.03385, section 4.2) do on CIFAR-10: a crop of the image padded by
// `crop` pixels on each side, that is a shift by up to so many pixels both ways, what comes in being 0 after
// the mean was taken off; mirrored left to right or not; the mean over all training images taken off pixel by
// pixel (mean=pixel) or as one number (mean=one). The division by the standard deviation stays.
//
// What a step's samples get depends on (seed, step, place in the batch) and nothing else, so a resumed run
// needs no more than its step number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gradflow/engine/dataset.h"

namespace gradflow {

struct Augmentation {
  std::string text = "none";  // as written
  int crop = 0;               // pixels, below 128
  bool flip = false;
  bool pixel_mean = false;

  bool moves() const noexcept { return crop > 0 || flip; }
};

Augmentation parse_augmentation(std::string_view spec);  // UserError, see spec_text.h

// UserError if images of this shape cannot be shifted that far.
void check_fits(const Augmentation& augmentation, const ImageShape& shape);

// Fills out [batch, 3] with (dy, dx, flip) of the samples of a step, as kernels::GatherBatch takes them.
void draw_crops(const Augmentation& augmentation, std::uint64_t seed, std::uint64_t step,
                std::span<std::int8_t> out);

}  // namespace gradflow
