#include "gradflow/engine/augmentation.h"

#include <fmt/format.h>

#include <algorithm>

#include "gradflow/engine/random.h"
#include "gradflow/engine/spec_text.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

Augmentation parse_augmentation(std::string_view spec) {
  SpecReader reader(spec, "augmentation");
  Augmentation a;
  a.text = reader.text();
  if (reader.name() == "standard") {
    a.crop = static_cast<int>(reader.get_int("crop", 4, 0, 127));
    a.flip = reader.get_switch("flip", true);
    a.pixel_mean = reader.get_choice("mean", {"pixel", "one"}, "pixel") == "pixel";
  } else if (reader.name() != "none") {
    throw_unknown_name("augmentation", spec, reader.name(), {"none", "standard"});
  }
  reader.finish();
  return a;
}

void check_fits(const Augmentation& a, const ImageShape& shape) {
  const std::size_t smaller = std::min(shape.height, shape.width);
  if (static_cast<std::size_t>(a.crop) >= std::max<std::size_t>(smaller, 1))
    throw UserError(
        fmt::format("augmentation {}: crop={} shifts images of {}x{} out of sight; it must be below {}",
                    quote(a.text), a.crop, shape.height, shape.width, smaller));
}

void draw_crops(const Augmentation& a, std::uint64_t seed, std::uint64_t step, std::span<std::int8_t> out) {
  const RandomStream stream(seed, "augmentation", step);
  const std::uint64_t shifts = 2 * static_cast<std::uint64_t>(a.crop) + 1;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool mirror = i % 3 == 2;
    const std::uint64_t drawn = stream.below(mirror ? 2 : shifts, i);
    out[i] = mirror ? static_cast<std::int8_t>(a.flip ? drawn : 0)
                    : static_cast<std::int8_t>(static_cast<int>(drawn) - a.crop);
  }
}

}  // namespace gradflow
