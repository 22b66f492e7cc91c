// launch(queue, GRADFLOW_KERNEL(column_sum_f32), grid, arguments...): type-checked, checked, named.
#pragma once

#include <type_traits>

#include "kernels/cuda/queue.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/storage.cuh"

namespace gradflow::kernels::cuda {

template <class... Parameters>
struct Kernel {
  const char* name;
  void (*entry)(Parameters...);
};

template <class... Parameters>
Kernel(const char*, void (*)(Parameters...)) -> Kernel<Parameters...>;

#define GRADFLOW_KERNEL(function) (::gradflow::kernels::cuda::Kernel{#function, function})

// name_f32 or name_bf16, as the storage S says.
#define GRADFLOW_KERNEL_OF(S, name) \
  (::gradflow::kernels::cuda::of_storage<S>(GRADFLOW_KERNEL(name##_f32), GRADFLOW_KERNEL(name##_bf16)))

template <class S, class F32, class B16>
auto of_storage(const F32& f32, const B16& bf16) {
  if constexpr (std::is_same_v<S, float>) {
    return f32;
  } else {
    static_assert(std::is_same_v<S, Bf16>);
    return bf16;
  }
}

// Calls f.template operator()<S>() for the storage that `dtype` names; throws UserError if there is none.
template <class F>
void visit_storage(DType dtype, const char* operation, F&& f) {
  require_storage(dtype, operation);
  if (dtype == DType::f32) {
    f.template operator()<float>();
  } else {
    f.template operator()<Bf16>();
  }
}

template <class... Parameters>
void launch(Queue& queue, const Kernel<Parameters...>& kernel, const BlockGrid& grid,
            std::type_identity_t<Parameters>... arguments) {
#ifdef __CUDACC__
  void* pointers[] = {&arguments...};
  queue.launch(kernel.name, grid, reinterpret_cast<const void*>(kernel.entry), pointers);
#else
  static_cast<void>(queue);
  simt::run(kernel.name, {grid.x, grid.y, 1}, {grid.threads_x, grid.threads_y, 1},
            [&] { kernel.entry(arguments...); }, grid.shared_bytes);
#endif
}

}  // namespace gradflow::kernels::cuda
