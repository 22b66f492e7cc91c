// Weights by name from files of gradflow and of PyTorch.
#include "gradflow/engine/weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "engine/temp_dir.h"
#include "gradflow/engine/checkpoint.h"
#include "gradflow/engine/device.h"
#include "gradflow/engine/safetensors.h"
#include "gradflow/layers/models.h"

namespace gradflow {
namespace {

using test::has;
using test::TempDir;
using test::user_error;

struct WeightsNet {
  explicit WeightsNet(const std::string& text, DType dtype = DType::f32)
      : device(open_device("cpu", 1)),
        model(build_model(parse_model(text), {.batch = 2, .features = 32 * 32 * 3, .classes = 10, .dtype = dtype, .image = {32, 32, 3}})),
        store(*device, model.graph) {
    store.initialize(model.spec.initializer(), 1);
  }

  std::unique_ptr<Backend> device;
  Model model;
  ParameterStore store;
};

struct FileEntry {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<std::uint64_t> shape;
  std::vector<float> values;  // f32 unless a test replaces `bytes`
  std::vector<std::uint16_t> narrow;
};

// A file as PyTorch would save resnet18: numbered elements, so that a wrong order shows.
std::vector<FileEntry> torch_file(const WeightsNet& net) {
  std::vector<FileEntry> file;
  float next = 0;
  const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
    if (shape.size() == 4) shape = {shape[0], shape[3], shape[1], shape[2]};
    FileEntry e{.name = name, .shape = shape, .values = {}, .narrow = {}};
    std::uint64_t count = 1;
    for (const std::uint64_t extent : shape) count *= extent;
    for (std::uint64_t i = 0; i < count; ++i) e.values.push_back(next++);
    file.push_back(std::move(e));
  };
  const auto extents = [](const Shape& s) {
    std::vector<std::uint64_t> list;
    for (std::size_t i = 0; i < s.rank(); ++i) list.push_back(static_cast<std::uint64_t>(s[i]));
    return list;
  };
  for (const ParameterSpec& p : net.store.parameter_specs()) add(p.name, extents(p.shape));
  for (const StateSpec& s : net.store.state_specs())
    if (!s.control) add(s.name, extents(s.spec.shape));
  file.push_back({.name = "bn1.num_batches_tracked", .shape = {}, .values = {7}, .narrow = {}});
  return file;
}

void write_entries(const std::filesystem::path& path, const std::vector<FileEntry>& file, const Metadata& metadata = {}) {
  std::vector<TensorToStore> tensors;
  for (const FileEntry& e : file)
    tensors.push_back({e.name, e.type, e.shape, e.narrow.empty() ? static_cast<const void*>(e.values.data()) : e.narrow.data()});
  write_safetensors(path, tensors, metadata);
}

FileEntry& find_entry(std::vector<FileEntry>& file, const std::string& name) {
  for (FileEntry& e : file)
    if (e.name == name) return e;
  throw std::runtime_error(name);
}

TEST(Weights, OfAPyTorchModuleByNameAndInItsOrder) {
  TempDir dir;
  WeightsNet net("resnet18");
  std::vector<FileEntry> file = torch_file(net);
  write_entries(dir / "w", file);
  EXPECT_EQ(load_weights(dir / "w", net.store), file.size() - 1);
  const auto tensor = [&](const std::string& name) {
    return net.store.parameters()[static_cast<std::size_t>(net.model.graph.find_parameter(name))];
  };
  const Tensor w = tensor("layer2.0.conv1.weight");
  const std::vector<float>& given = find_entry(file, "layer2.0.conv1.weight").values;
  const std::int64_t channels = w.shape()[3];
  ASSERT_EQ(w.shape(), (Shape{128, 3, 3, 64}));
  for (const std::int64_t o : {0, 5, 127})
    for (const std::int64_t c : {0, 63})
      for (const std::int64_t r : {0, 2})
        for (const std::int64_t s : {0, 1})
          EXPECT_EQ(w.as<float>()[((o * 3 + r) * 3 + s) * channels + c],
                    given[static_cast<std::size_t>(((o * channels + c) * 3 + r) * 3 + s)]);
  EXPECT_EQ(tensor("fc.bias").as<float>()[9], find_entry(file, "fc.bias").values[9]);
  EXPECT_EQ(tensor("fc.weight").as<float>()[513], find_entry(file, "fc.weight").values[513]);
  for (std::size_t i = 0; i < net.store.states().size(); ++i) {
    const StateSpec& s = net.store.state_specs()[i];
    if (s.name == "layer4.1.bn2.running_var") {
      EXPECT_EQ(net.store.states()[i].as<float>()[3], find_entry(file, s.name).values[3]);
    }
    if (s.control) {
      EXPECT_EQ(net.store.states()[i].as<float>()[0], 1.0f) << s.name;  // as initialized
    }
  }
}

TEST(Weights, InNarrowAndWideTypes) {
  TempDir dir;
  WeightsNet net("mlp:depth=1", DType::f64);
  FileEntry weight{.name = "head.linear.weight", .type = StoredType::bf16, .shape = {10, 3072}, .values = {}, .narrow = std::vector<std::uint16_t>(30720, 0x3fc0)};
  // Half precision: 1.5, the smallest subnormal, the largest number, -0.
  FileEntry bias{.name = "head.linear.bias", .type = StoredType::f16, .shape = {10}, .values = {}, .narrow = {0x3e00, 0x0001, 0x7bff, 0x8000, 0, 0, 0, 0, 0, 0xc000}};
  write_entries(dir / "w", {weight, bias});
  load_weights(dir / "w", net.store);
  EXPECT_EQ(net.store.parameters()[0].as<double>()[30719], 1.5);
  const double* b = net.store.parameters()[1].as<double>();
  EXPECT_EQ(b[0], 1.5);
  EXPECT_EQ(b[1], 0x1p-24);
  EXPECT_EQ(b[2], 65504);
  EXPECT_TRUE(std::signbit(b[3]) && b[3] == 0);
  EXPECT_EQ(b[9], -2);
}

// A checkpoint of gradflow: its own order of elements, its moments passed over.
TEST(Weights, OfACheckpoint) {
  TempDir dir;
  WeightsNet from("resnet:depth=8"), to("resnet:depth=8");
  from.store.initialize({}, 9);
  Optimizer optimizer(from.store, {.learning_rate = 0.1, .momentum = 0.9});
  save_checkpoint(dir / "c", from.store, &optimizer, {});
  load_weights(dir / "c", to.store);
  for (std::size_t i = 0; i < to.store.parameters().size(); ++i) {
    const Tensor &a = from.store.parameters()[i], &b = to.store.parameters()[i];
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << to.store.parameter_specs()[i].name;
  }
}

TEST(Weights, WhatDoesNotFitIsSaidInOneLine) {
  TempDir dir;
  WeightsNet net("resnet18");
  const std::vector<float> before(net.store.parameters()[0].as<float>(), net.store.parameters()[0].as<float>() + 9);
  const auto error_with = [&](const std::function<void(std::vector<FileEntry>&)>& change) {
    std::vector<FileEntry> file = torch_file(net);
    change(file);
    write_entries(dir / "w", file);
    const std::string error = user_error([&] { load_weights(dir / "w", net.store); });
    EXPECT_EQ(error.find('\n'), std::string::npos);
    return error;
  };
  EXPECT_TRUE(has(error_with([](auto& f) { f.erase(f.begin()); }), "do not fit the network: it lacks 'conv1.weight' [64, 3, 7, 7]"));
  EXPECT_TRUE(has(error_with([](auto& f) { f.erase(f.begin(), f.begin() + 10); }), " and 7 more"));
  EXPECT_TRUE(has(error_with([](auto& f) { f.push_back({.name = "layer5.w", .shape = {1}, .values = {1}, .narrow = {}}); }),
                  "it holds 'layer5.w' [1], which the network has not"));
  EXPECT_TRUE(has(error_with([](auto& f) {
    find_entry(f, "fc.bias").shape = {2};
    find_entry(f, "fc.bias").values.resize(2);
  }), "'fc.bias' is [2] there and [10] here"));
  EXPECT_TRUE(has(error_with([](auto& f) { std::swap(find_entry(f, "conv1.weight").shape[0], find_entry(f, "conv1.weight").shape[1]); }),
                  "'conv1.weight' is [3, 64, 7, 7] there and [64, 3, 7, 7] here"));
  EXPECT_TRUE(has(error_with([](auto& f) { find_entry(f, "fc.bias").type = StoredType::i32; }), "'fc.bias' is I32, not F64, F32, F16 or BF16"));
  EXPECT_TRUE(has(error_with([](auto& f) { find_entry(f, "fc.bias").values[4] = std::numeric_limits<float>::quiet_NaN(); }),
                  "'fc.bias' holds nan at element 4"));
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(net.store.parameters()[0].as<float>()[i], before[i]) << "changed";
}

}  // namespace
}  // namespace gradflow
