// Numbers as they are stored (f32, bf16, f64) beside what is computed with, and sinks of one stored array.
#pragma once

#include <cstdint>
#include <vector>

#include "gradflow/kernels/bf16.h"
#include "support.h"

namespace gradflow::kernels::test {

// How numbers of storage S are widened to what is computed with, and back.
template <class S>
struct Stored {
  using Wide = S;
  static constexpr DType dtype = dtype_of<S>(), wide_dtype = dtype_of<S>();
  static S narrow(Wide x) { return x; }
  static Wide widen(S x) { return x; }
};
template <>
struct Stored<Bf16> {
  using Wide = float;
  static constexpr DType dtype = DType::bf16, wide_dtype = DType::f32;
  static Bf16 narrow(float x) { return to_bf16(x); }
  static float widen(Bf16 x) { return to_float(x); }
};

template <class S>
std::vector<S> narrowed(const std::vector<typename Stored<S>::Wide>& x) {
  std::vector<S> y;
  for (const auto v : x) y.push_back(Stored<S>::narrow(v));
  return y;
}
template <class S>
std::vector<typename Stored<S>::Wide> widened(const std::vector<S>& x) {
  std::vector<typename Stored<S>::Wide> y;
  for (const S v : x) y.push_back(Stored<S>::widen(v));
  return y;
}

// Calls f.template operator()<S>() for every storage the backend computes on.
template <class F>
void for_each_storage(Backend& device, F f) {
  f.template operator()<float>();
  f.template operator()<Bf16>();
  if (device.supports(DType::f64)) f.template operator()<double>();
}

// What the device reads where S is stored: S's values, widened.
template <class S>
std::vector<typename Stored<S>::Wide> wild(Random& random, std::size_t n) {
  return widened(narrowed<S>(random.wild<typename Stored<S>::Wide>(n)));
}

// Sinks of one array, and what they must hold: its statistics as dtype stores it, and its histogram.
template <class S>
class Sinks {
 public:
  explicit Sinks(Backend& device) : device_(device), stats_(device, 1), bins_(device, kExponentBins) {}
  Stats* stats() { return stats_.data(); }
  std::uint64_t* bins() { return bins_.data(); }
  Stats seen() const { return stats_.front(); }

  void expect(const std::vector<S>& stored, PointwiseId op = PointwiseId::identity) {
    const auto x = widened(stored);
    expect_stats(stats_.front(), naive_stats(x, op), sum_of_magnitudes(x));
    DeviceArray<S> copy(device_, stored);
    DeviceArray<std::uint64_t> want(device_, kExponentBins);
    device_.exponent_histogram({Stored<S>::dtype, stored.size(), copy.data(), want.data()});
    EXPECT_EQ(bins_.get(), want.get());
  }

 private:
  Backend& device_;
  DeviceArray<Stats> stats_;
  DeviceArray<std::uint64_t> bins_;
};

}  // namespace gradflow::kernels::test
