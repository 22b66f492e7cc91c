// Every kernel's results, in every storage: the benchmark has a case for each kernel, and each case is run here on
// drawn operands, at sizes and starts that leave tails and break alignment, under several schedules. The bits must
// not depend on the schedule; numbers are held against the same call on the host in f64, everything else against
// the host in the same storage. What an operation does at its edges (no elements, aliases, modes) has tests of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "apps/bench/kernels/case.h"
#include "simt/harness.h"
#include "simt/kernel_names.h"

namespace gradflow::kernels::cuda {
namespace {

using app::Content;
using app::KernelCase;
using app::Operand;
using app::Work;
using Bytes = std::vector<std::uint8_t>;

template <class T>
void append_bytes(Bytes& to, const T& value) {
  to.resize(to.size() + sizeof value);
  std::memcpy(to.data() + to.size() - sizeof value, &value, sizeof value);
}

template <class T>
T read_as(const Bytes& bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
  return value;
}

bool holds_numbers(const Operand& o) { return o.content == Content::normal || o.content == Content::positive; }

void append_number(Bytes& to, DType t, double x) {
  if (t == DType::f64) return append_bytes(to, x);
  if (t == DType::f32) return append_bytes(to, static_cast<float>(x));
  append_bytes(to, gradflow::to_bf16(static_cast<float>(x)));
}

double number_at(const Bytes& bytes, DType t, std::size_t i) {
  if (t == DType::f64) return read_as<double>(bytes, i);
  if (t == DType::f32) return static_cast<double>(read_as<float>(bytes, i));
  return static_cast<double>(gradflow::to_float(read_as<gradflow::Bf16>(bytes, i)));
}

// As it would be stored: by way of f32, as the contract of bf16 says.
double rounded_to(DType t, double x) {
  if (t == DType::f64) return x;
  const auto single = static_cast<float>(x);
  return static_cast<double>(t == DType::f32 ? single : gradflow::to_float(gradflow::to_bf16(single)));
}

// Where the elements of a result depend on one element of each operand.
bool elementwise(const KernelCase& c) {
  return c.family == "pointwise" || c.family == "residual" || c.family == "probe" || c.family == "memory" ||
         c.call == "bias_activation_forward" || c.call == "residual_forward" || c.call == "residual_backward";
}

class CaseValues : public KernelTest, public testing::WithParamInterface<DType> {
 protected:
  CaseValues() {
    ::simt::on_launch = [this](const char* kernel) { launched_.insert(kernel); };
  }
  ~CaseValues() override { ::simt::on_launch = nullptr; }

  // A round is one case at one size and start. Special values are put where each element is computed by itself.
  struct Round {
    const KernelCase& c;
    const KernelCase* wide;  // the same case in f64; null where there is none
    std::size_t size, offset;
    bool special;
    std::span<const std::uint64_t> schedules;
    bool sums;  // a result is a sum of elements, whose order is another where single elements take the place of packs
  };

  static Bytes draw(const Round& round, const Operand& o, std::size_t place) {
    std::mt19937 generator(static_cast<unsigned>(17 * place + round.size));
    Bytes image;
    if (holds_numbers(o)) {
      std::vector<float> x = numbers(o.elements, static_cast<unsigned>(31 * place + round.size), round.special);
      if (round.special)  // other special values meet in each pair of operands
        std::rotate(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(5 * place % std::max<std::size_t>(x.size(), 1)),
                    x.end());
      for (float v : x) {
        // No square or product may leave f32's range where f64 holds it; that range has tests of its own.
        if (std::isfinite(v) && std::fabs(v) > 1e6f) v = std::copysign(1e6f, v);
        if (round.c.name.find("softplus_backward") != std::string::npos && place == 0)
          v = std::fabs(v);  // what is saved is a softplus, which is not negative
        append_number(image, o.dtype, o.content == Content::positive ? v * v : v);
      }
      return image;
    }
    switch (o.content) {
      case Content::labels:
        for (std::size_t i = 0; i < o.elements; ++i)
          append_bytes(image, static_cast<std::int32_t>(generator() % static_cast<unsigned>(o.limit)));
        return image;
      case Content::rows:
        for (std::size_t i = 0; i < o.elements; ++i)
          append_bytes(image, static_cast<std::int32_t>(o.elements - 1 - i));
        return image;
      case Content::gates: append_bytes(image, Gates{0.5f, -2, 0.75f, 3}); return image;
      case Content::scalars:
        append_bytes(image, OptimizerScalars{0.25f, 0.125f, 0.9f, 0.9f, 0.99f, 1e-8f, 0.5f, 0.25f});
        return image;
      case Content::bytes:
        for (std::size_t i = 0; i < o.bytes(); ++i) image.push_back(static_cast<std::uint8_t>(generator()));
        return image;
      default: break;
    }
    image.resize(o.bytes());
    if (round.c.name.starts_with("gather_crop") && o.dtype == DType::u8)  // dy, dx, flip
      for (std::size_t i = 0; i < image.size(); ++i)
        image[i] = i % 3 == 2 ? generator() % 2 : static_cast<std::uint8_t>(generator() % 9 - 4);
    return image;
  }

  static std::vector<Bytes> draw(const Round& round, const Work& work) {
    std::vector<Bytes> images;
    for (const Operand& o : work.operands) images.push_back(draw(round, o, images.size()));
    return images;
  }

  // Operands that grow with the size, and the rows, are gone; those of a column or of the whole stay.
  static Work without_elements(const KernelCase& c) {
    Work work = c.work(1 << 16);
    const Work more = c.work(1 << 17);
    for (std::size_t i = 0; i < work.operands.size(); ++i)
      if (work.operands[i].elements != more.operands[i].elements) work.operands[i].elements = 0;
    work.rows = 0;
    return work;
  }

  // What the operands hold afterwards. Nothing lies behind their ends; structs keep their alignment.
  static std::vector<Bytes> run(Backend& backend, const KernelCase& c, const Work& work,
                                const std::vector<Bytes>& images, std::size_t offset) {
    std::vector<std::unique_ptr<Array<std::uint8_t>>> arrays;
    std::vector<void*> pointers;
    for (std::size_t i = 0; i < images.size(); ++i) {
      const Operand& o = work.operands[i];
      const bool is_struct = o.content != Content::bytes && o.dtype == DType::u8;
      const bool is_u16 = c.call.starts_with("gather") && i == 1;  // labels, which are given as bytes
      arrays.push_back(std::make_unique<Array<std::uint8_t>>(
          backend, images[i], is_struct ? 0 : offset * (is_u16 ? sizeof(std::uint16_t) : size_of(o.dtype))));
      pointers.push_back(o.elements == 0 ? nullptr : arrays.back()->data());
    }
    c.bind(backend, work, pointers)();
    std::vector<Bytes> after;
    for (const auto& array : arrays) after.push_back(array->read());
    return after;
  }

  void check(const Round& round) {
    const Work work = round.c.work(round.size);
    std::vector<Bytes> images = draw(round, work);
    if (round.c.call == "max_pool_backward") images[2] = winners(round);
    std::vector<Bytes> got;
    for (const std::uint64_t schedule : round.schedules) {
      ::simt::set_seed(schedule);
      std::vector<Bytes> now = run(simt, round.c, work, images, round.offset);
      if (schedule == round.schedules.front()) got = std::move(now);
      else EXPECT_EQ(now, got) << "schedule " << schedule;
    }
    for (std::size_t i = 0; round.offset != 0 && !round.sums && i < aligned_.size(); ++i)
      if (holds_numbers(work.operands[i])) expect_same(work.operands[i].dtype, got[i], aligned_[i]);
    aligned_ = round.offset == 0 ? got : std::vector<Bytes>{};
    const std::vector<Bytes> same = run(*cpu, round.c, work, images, 0);
    std::vector<Bytes> wide = same;
    Work wide_work = work;
    if (round.wide != nullptr) {
      wide_work = round.wide->work(round.size);
      ASSERT_EQ(wide_work.operands.size(), work.operands.size());
      std::vector<Bytes> in(images.size());
      for (std::size_t i = 0; i < in.size(); ++i) {
        const Operand &from = work.operands[i], &to = wide_work.operands[i];
        ASSERT_EQ(from.elements, to.elements);
        if (from.dtype == to.dtype) in[i] = images[i];
        else
          for (std::size_t k = 0; k < from.elements; ++k)
            append_number(in[i], to.dtype, number_at(images[i], from.dtype, k));
      }
      wide = run(*cpu, *round.wide, wide_work, in, 0);
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE("operand " + std::to_string(i));
      const Operand& o = work.operands[i];
      if (holds_numbers(o))
        expect_numbers(round, work, i, got[i], wide_work.operands[i].dtype, wide[i], images);
      else if (o.content == Content::zero && o.bytes() == sizeof(Stats) && round.c.call != "mark_alive")
        expect_stats(round, read_as<Stats>(got[i], 0), read_as<Stats>(same[i], 0));
      else if (round.c.call == "softmax_cross_entropy" && o.content == Content::zero)
        expect_loss(read_as<LossResult>(got[i], 0), read_as<LossResult>(wide[i], 0));
      else if (round.c.call == "difference_stats" && o.content == Content::zero)
        expect_dot(read_as<double>(got[i], 0), read_as<double>(wide[i], 0));
      else
        EXPECT_EQ(got[i], same[i]);  // counts, indices, labels, and what is only read
    }
  }

  std::set<std::string> launched_;

 private:
  std::vector<Bytes> aligned_;  // the results of the last round whose arrays were

  // Which NaN is the compiler's choice, see same_bits().
  static void expect_same(DType t, const Bytes& got, const Bytes& aligned) {
    for (std::size_t i = 0, n = got.size() / size_of(t), bytes = size_of(t); i < n; ++i) {
      if (std::memcmp(&got[i * bytes], &aligned[i * bytes], bytes) == 0) continue;
      ASSERT_TRUE(std::isnan(number_at(got, t, i)) && std::isnan(number_at(aligned, t, i)))
          << "element " << i << " depends on where its array starts";
    }
  }

  // Of drawn images, so that each lies in its window.
  Bytes winners(const Round& round) const {
    for (const KernelCase& c : app::kernel_cases(round.c.dtype)) {
      if (c.call != "max_pool_forward") continue;
      const Work work = c.work(round.size);
      return run(*cpu, c, work, draw(round, work), 0)[2];
    }
    ADD_FAILURE() << "no case of max_pool_forward";
    return {};
  }

  // A result in f32 is off by some roundings, each of 2^-24 of a term: 16 of them are allowed for, and of what lies among
  // denormals 16 of the smallest. The functions (expf, tanhf...) are within a few more. How large terms are: where elements
  // stand for themselves, not larger than the result or the operands there (factors of gates are 3 at most); else
  // not much larger than the largest result (of few results: than the operands, which may cancel). What is stored then
  // lies between the two ends of that interval, stored: rounding keeps order, and adds no tolerance of its own. What
  // only moves is exact.
  void expect_numbers(const Round& round, const Work& work, std::size_t operand, const Bytes& got, DType wide,
                      const Bytes& want, const std::vector<Bytes>& images) {
    const Operand& o = work.operands[operand];
    double scale = o.elements < 64 ? 4.0 : 0.0;
    for (std::size_t i = 0; i < o.elements; ++i) {
      const double w = std::fabs(number_at(want, wide, i));
      if (w < 1e30) scale = std::max(scale, w);
    }
    const std::string& call = round.c.call;
    const bool moves = call == "cast" || call == "fill" || call == "move_memory" || call == "random_fill";
    const std::vector<double> terms = elementwise(round.c) ? terms_of(work, o.elements, images) : std::vector<double>();
    for (std::size_t i = 0; i < o.elements; ++i) {
      const double g = number_at(got, o.dtype, i), w = number_at(want, wide, i);
      const double term = std::max(terms.empty() ? scale : terms[i], std::isfinite(w) ? std::fabs(w) : 0.0);
      double slack = moves ? 0.0 : std::max(0x1p-20 * term, 0x1p-145);
      // A bias's gradient is the sum of what is stored; each term is half a place of bf16 off. (|dx| <= 32 here.)
      if (call == "bias_activation_backward" && round.c.dtype == DType::bf16 && o.dtype == DType::f32)
        slack += 0x1p-8 * 32 * static_cast<double>(work.rows);
      // The copy of a weight: wide[i] is rounded already, so the f32 weight may round to a neighbor.
      if (wide == DType::bf16 && !moves) slack += 0x1p-7 * std::fabs(w);
      if (std::isnan(w) ? std::isnan(g) : rounded_to(o.dtype, w - slack) <= g && g <= rounded_to(o.dtype, w + slack))
        continue;
      FAIL() << "element " << i << ": " << g << ", want " << w << " within " << slack;
    }
  }

  // The largest finite operand at each element; what is not an array of n numbers is one for all (a row of biases).
  static std::vector<double> terms_of(const Work& work, std::size_t n, const std::vector<Bytes>& images) {
    std::vector<double> terms(n, 0.0);
    for (std::size_t k = 0; k < images.size(); ++k) {
      const Operand& o = work.operands[k];
      if (!holds_numbers(o)) continue;
      double largest = 0;
      for (std::size_t i = 0; i < o.elements; ++i) {
        const double x = std::fabs(number_at(images[k], o.dtype, i));
        if (!std::isfinite(x)) continue;
        if (o.elements == n) terms[i] = std::max(terms[i], x);
        else largest = std::max(largest, x);
      }
      for (double& term : terms) term = std::max(term, largest);
    }
    return terms;
  }

  // Counts are exact. Sums: of values that may differ by the roundings above, or in bf16 by one place (2^-7); and
  // the host adds runs in f32 (2^-19, stats.h).
  void expect_stats(const Round& round, const Stats& got, const Stats& want) {
    const double each = round.c.dtype == DType::bf16 ? 0x1p-7 : 0x1p-18;
    const double size = std::sqrt(want.sum_squares * static_cast<double>(want.count));  // >= sum of |x|
    const auto close = [](double a, double b, double by) {
      return std::isnan(b) ? std::isnan(a) : a == b || std::fabs(a - b) <= by;
    };
    EXPECT_TRUE(close(got.sum, want.sum, each * size)) << got.sum << ", want " << want.sum;
    EXPECT_TRUE(close(got.sum_squares, want.sum_squares, 2 * each * want.sum_squares))
        << got.sum_squares << ", want " << want.sum_squares;
    EXPECT_TRUE(close(got.max_abs(), want.max_abs(), each * want.max_abs())) << got.max_abs();
    EXPECT_EQ(got.count, want.count);
    EXPECT_EQ(got.zeros, want.zeros);
    EXPECT_EQ(got.denormals, want.denormals);
    EXPECT_EQ(got.nonfinite, want.nonfinite);
    EXPECT_EQ(got.saturated, want.saturated);
  }

  // A row's loss is the logarithm of a sum of f32 exponentials: some roundings of about 1 each.
  void expect_loss(const LossResult& got, const LossResult& want) {
    EXPECT_NEAR(got.loss_sum, want.loss_sum, 0x1p-20 * (want.loss_sum + static_cast<double>(want.rows)));
    EXPECT_EQ(got.rows, want.rows);
    EXPECT_EQ(got.correct, want.correct);
  }

  // Products and sums in f64 in another order; terms are below 100 where nothing is special.
  void expect_dot(double got, double want) {
    if (std::isfinite(want)) EXPECT_NEAR(got, want, 1e-9 * std::max(1.0, std::fabs(want)));
    else EXPECT_EQ(std::isnan(got), std::isnan(want));
  }
};

std::string in_f64(const KernelCase& c) {
  const std::string in = "_" + std::string(name_of(c.dtype));
  std::string name = c.name;
  return name.replace(name.rfind(in, name.find('/')), in.size(), "_f64");
}

TEST_P(CaseValues, AreTheHostsUnderEverySchedule) {
  const std::vector<KernelCase> wide = app::kernel_cases(DType::f64);
  for (const KernelCase& c : app::kernel_cases(GetParam())) {
    const std::string name = in_f64(c);
    const auto same = std::ranges::find(wide, name, &KernelCase::name);
    if (same == wide.end()) {
      ASSERT_EQ(c.call, "move_memory") << name << " is no case";
    }
    std::vector<std::size_t> all_sizes(case_sizes().begin(), case_sizes().end());
    if (c.family == "pooling") all_sizes.back() = 16384;  // from here on, its cases have images of more than one pixel
    for (std::size_t s = 0; s < all_sizes.size(); ++s)
      for (const std::size_t offset : {0, 1}) {
        const std::size_t size = all_sizes[s];
        std::span<const std::uint64_t> orders = schedules();
#ifdef __SANITIZE_ADDRESS__  // see simt_backend.cpp
        if (s + 1 == all_sizes.size() && offset == 0) continue;
        orders = orders.subspan((s + offset) % 2, 1);
#endif
        const bool special = elementwise(c) && s % 2 == 1;  // at either start
        const bool sums = !elementwise(c) && c.family != "pooling" && c.family != "input";
        SIMT_CASE(c.name << " size=" << size << " offset=" << offset);
        check({c, same == wide.end() ? nullptr : &*same, size, offset, special, orders, sums});
      }
  }
  if (std::getenv("SIMT_CASE") != nullptr) return;  // one round alone
  const std::string storage = "_" + std::string(name_of(GetParam()));
  std::size_t kernels = 0;
  for (const std::string& kernel : kernel_names_in("/proc/self/exe")) {
    if (!kernel.ends_with(storage)) continue;
    ++kernels;
    EXPECT_TRUE(launched_.contains(kernel)) << kernel << " has no case, so no value of it was checked";
  }
  EXPECT_GT(kernels, 80u);
}

// Arrays without elements, and columns without rows: as on the host, bit by bit, whose meaning of "nothing" the tests
// in tests/kernels state.
TEST_P(CaseValues, OfNothingAreTheHosts) {
  for (const KernelCase& c : app::kernel_cases(GetParam())) {
    SIMT_CASE(c.name << " of nothing");
    const Round round{c, nullptr, 0, 0, false, schedules()};
    const Work work = without_elements(c);
    const std::vector<Bytes> images = draw(round, work);
    EXPECT_EQ(run(simt, c, work, images, 0), run(*cpu, c, work, images, 0));
  }
}

INSTANTIATE_TEST_SUITE_P(In, CaseValues, testing::Values(DType::f32, DType::bf16),
                         [](const auto& in) { return std::string(name_of(in.param)); });

}  // namespace
}  // namespace gradflow::kernels::cuda
