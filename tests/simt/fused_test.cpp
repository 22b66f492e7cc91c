// Fused kernels, casts, augmented batches and random numbers through several schedules and the race pass,
// against the host backend. What their bits must be is tested in tests/kernels.
#include "simt/harness.h"

namespace gradflow::kernels::cuda {
namespace {

class Fused : public VectorTest {};

// Functions of two libraries, a few units in the last place each, of numbers of size one; and sums of those.
TEST_F(Fused, BiasAndActivation) {
  for (const PointwiseId op : {PointwiseId::relu, PointwiseId::tanh, PointwiseId::gelu}) {
    for (const auto [rows, columns] :
         {MatrixShape{1, 1}, MatrixShape{33, 8}, MatrixShape{700, 5}, MatrixShape{50, 132}, MatrixShape{2050, 4}}) {
      for (const std::size_t offset : {0u, 1u}) {  // 16-byte packs, or single elements
        for (const GradMode mode : {GradMode::overwrite, GradMode::accumulate}) {
          SIMT_CASE(info_of(op).name << " " << rows << "x" << columns << " offset=" << offset
                                     << " mode=" << static_cast<int>(mode));
          const std::size_t n = rows * columns;
          compare(16 * 1.2e-7, 4.0, [&](Backend& backend) {
            const Array<float> x(backend, numbers(n, 1), offset), y(backend, n, offset);
            const Array<float> bias(backend, numbers(columns, 2)), dy(backend, numbers(n, 3), offset);
            const Array<float> dx(backend, numbers(n, 4), offset), dbias(backend, numbers(columns, 5));
            backend.bias_activation_forward({op, DType::f32, rows, columns, x.data(), bias.data(), y.data()});
            const bool of_input = info_of(op).saves == Saves::x;
            backend.bias_activation_backward({op, DType::f32, rows, columns, of_input ? x.data() : y.data(),
                                              bias.data(), dy.data(), dx.data(), dbias.data(), mode});
            std::vector<float> all = y.read();
            append(all, dx.read());
            append_sums(all, dbias.read(), rows);
            return all;
          });
        }
      }
    }
  }
}

// Sums of n products of size one, in f64.
TEST_F(Fused, Scalars) {
  for (const std::size_t n : sizes()) {
    for (const GradMode mode : {GradMode::none, GradMode::overwrite, GradMode::accumulate}) {
      SIMT_CASE("n=" << n << " mode=" << static_cast<int>(mode));
      compare(4 * 6e-8, 4.0, [&](Backend& backend) {
        const Array<float> x(backend, numbers(n, 1)), dy(backend, numbers(n, 2), n % 2), y(backend, n);
        const Array<float> dx(backend, numbers(n, 3)), scale(backend, std::vector<float>{0.75f});
        const Array<float> shift(backend, std::vector<float>{-0.5f}), dscale(backend, std::vector<float>{1.0f}),
            dshift(backend, std::vector<float>{2.0f});
        backend.scalar_forward({DType::f32, n, x.data(), y.data(), scale.data(), shift.data()});
        backend.scalar_backward({DType::f32, n, x.data(), dy.data(), dx.data(), mode, scale.data(), dscale.data(),
                                 dshift.data(), n % 3 ? GradMode::overwrite : GradMode::accumulate});
        std::vector<float> all = y.read();
        append(all, dx.read());
        for (const auto* sum : {&dscale, &dshift}) append_sums(all, sum->read(), n + 1);
        return all;
      });
    }
  }
}

// The skip keeps the sums away from 0, where rounding would decide.
TEST_F(Fused, ResidualAndActivation) {
  for (const std::size_t n : sizes()) {
    for (const std::size_t offset : {0u, 1u}) {
      SIMT_CASE("n=" << n << " offset=" << offset);
      compare(8 * 6e-8, 8.0, [&](Backend& backend) {
        std::vector<float> before(n);
        for (std::size_t i = 0; i < n; ++i) before[i] = i % 3 == 0 ? -20.0f : 20.0f;
        const Array<Gates> gates(backend, std::vector<Gates>{{0.5f, 0.75f, 0.5f, 0.75f}});
        const Array<float> skip(backend, before, offset), branch(backend, numbers(n, 1), offset),
            y(backend, n, offset);
        const Array<float> dy(backend, numbers(n, 2), offset), dskip(backend, numbers(n, 3), offset);
        ResidualForward f{
            .n = n, .skip = skip.data(), .branch = branch.data(), .y = y.data(), .gates = gates.data()};
        f.scale = 0.3, f.op = PointwiseId::relu;
        backend.residual_forward(f);
        const Array<float> dbranch(backend, numbers(n, 4), offset);
        ResidualBackward b{.n = n, .dy = dy.data(), .dskip = dskip.data(), .skip_mode = GradMode::accumulate};
        b.dbranch = dbranch.data(), b.gates = gates.data(), b.scale = 0.3, b.op = PointwiseId::relu,
        b.y = y.data();
        backend.residual_backward(b);
        std::vector<float> all = y.read();
        for (const auto* part : {&dskip, &dbranch}) append(all, part->read());
        return all;
      });
    }
  }
}

TEST_F(Fused, CastsThereAndBack) {
  for (const std::size_t n : sizes()) {
    for (const std::size_t offset : {0u, 1u}) {
      SIMT_CASE("n=" << n << " offset=" << offset);
      compare(0, 0, [&](Backend& backend) {
        const Array<float> x(backend, numbers(n, 1, true), offset), back(backend, n, offset);
        const Array<Bf16> narrow(backend, n, offset);
        backend.cast({DType::f32, DType::bf16, n, x.data(), narrow.data()});
        backend.cast({DType::bf16, DType::f32, n, narrow.data(), back.data()});
        return back.read();
      });
    }
  }
}

TEST_F(Fused, RandomNumbers) {
  for (const std::size_t n : sizes()) {
    for (const Distribution distribution : {Distribution::uniform, Distribution::normal}) {
      SIMT_CASE("n=" << n << " distribution=" << static_cast<int>(distribution));
      compare(0, 0, [&](Backend& backend) {
        const Array<float> x(backend, n, n % 3);
        RandomFill fill{.n = n, .x = x.data(), .distribution = distribution, .a = -1, .b = 2};
        fill.seed = 7, fill.purpose = 3, fill.first = 5;
        backend.random_fill(fill);
        return x.read();
      });
    }
  }
}

TEST_F(Fused, AugmentedBatches) {
  constexpr std::size_t kImages = 20, kHeight = 6, kWidth = 5, kChannels = 3,
                        kFeatures = kHeight * kWidth * kChannels;
  for (const std::size_t batch : {std::size_t{1}, std::size_t{33}, std::size_t{300}}) {
    SIMT_CASE("batch=" << batch);
    std::vector<std::uint8_t> pixels(kImages * kFeatures);
    std::vector<std::uint16_t> labels(kImages);
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 37 % 256);
    for (std::size_t i = 0; i < kImages; ++i) labels[i] = static_cast<std::uint16_t>(65535 - 1000 * i);
    std::vector<std::int32_t> indices(batch);
    std::vector<std::int8_t> crops(batch * 3);
    for (std::size_t i = 0; i < batch; ++i) {
      indices[i] = static_cast<std::int32_t>(i * 13 % kImages);
      crops[3 * i] = static_cast<std::int8_t>(static_cast<int>(i % 9) - 4);
      crops[3 * i + 1] = static_cast<std::int8_t>(static_cast<int>(i / 2 % 9) - 4);
      crops[3 * i + 2] = static_cast<std::int8_t>(i % 2);
    }
    compare(1.2e-7, 1e-6, [&](Backend& backend) {
      const Array<std::uint8_t> p(backend, pixels);
      const Array<std::uint16_t> l(backend, labels);
      const Array<std::int32_t> at(backend, indices), y(backend, batch);
      const Array<std::int8_t> moved(backend, crops);
      const Array<float> x(backend, batch * kFeatures), mean(backend, numbers(kFeatures, 1));
      GatherBatch a{.batch = batch, .features = kFeatures, .images = p.data(), .labels = l.data()};
      a.indices = at.data(), a.inv_std = 2.83f, a.x = x.data(), a.y = y.data();
      a.height = kHeight, a.width = kWidth, a.channels = kChannels, a.crops = moved.data(),
      a.pixel_mean = mean.data();
      backend.gather_batch(a);
      std::vector<float> all = x.read();
      for (const std::int32_t label : y.read()) all.push_back(static_cast<float>(label));
      return all;
    });
  }
}

}  // namespace
}  // namespace gradflow::kernels::cuda
