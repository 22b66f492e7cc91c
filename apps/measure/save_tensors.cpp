#include "apps/measure/save_tensors.h"

#include <fmt/format.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return StoredType::f32;
    case DType::f64: return StoredType::f64;
    case DType::i32: return StoredType::i32;
    case DType::u8: return StoredType::u8;
    case DType::bf16: return StoredType::bf16;
  }
  throw InternalError("a tensor of unknown type");
}

class Collection {
 public:
  explicit Collection(Backend& backend) : backend_(backend) {}

  void add(std::string name, const Tensor& t) {
    if (!t) return;  // a gradient that nobody computes
    copies_.push_back(std::make_unique<std::byte[]>(t.bytes()));
    backend_.copy_out(copies_.back().get(), t.data, t.bytes());
    TensorToStore out{
        .name = std::move(name), .type = stored_type(t.dtype()), .shape = {}, .data = copies_.back().get()};
    for (std::size_t i = 0; i < t.shape().rank(); ++i)
      out.shape.push_back(static_cast<std::uint64_t>(t.shape()[i]));
    tensors_.push_back(std::move(out));
  }

  const std::vector<TensorToStore>& tensors() const noexcept { return tensors_; }

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;
  std::vector<TensorToStore> tensors_;
};

}  // namespace

void save_tensors(const std::string& file, const Executor& executor, const ParameterStore& parameters,
                  const Metadata& metadata) {
  const Graph& graph = executor.graph();
  Collection all(executor.backend());
  for (std::size_t p = 0; p < graph.parameters().size(); ++p) {
    all.add(graph.parameters()[p].name, parameters.parameters()[p]);
    all.add("grad/" + graph.parameters()[p].name, executor.parameter_gradient(static_cast<ParameterId>(p)));
  }
  for (std::size_t v = 0; v < graph.values().size(); ++v) {
    const Value& value = graph.values()[v];
    if (value.fused_away) continue;
    const bool input = value.is_input();
    all.add(input ? value.name : "activation/" + value.name, executor.value(static_cast<ValueId>(v)));
    all.add(fmt::format("grad/{}{}", input ? "" : "activation/", value.name),
            executor.gradient(static_cast<ValueId>(v)));
  }
  write_safetensors(file, all.tensors(), metadata);
}

void save_inputs(const std::string& file, const Executor& executor, const ParameterStore& parameters,
                 const Metadata& metadata) {
  Collection all(executor.backend());
  for (const char* name : {"x", "labels"}) all.add(name, executor.input(name));
  for (std::size_t p = 0; p < parameters.parameters().size(); ++p)
    all.add(executor.graph().parameters()[p].name, parameters.parameters()[p]);
  write_safetensors(file, all.tensors(), metadata);
}

}  // namespace gradflow::app
