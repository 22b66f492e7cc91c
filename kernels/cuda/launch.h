// launch(queue, GRADFLOW_KERNEL(column_sum_f32), grid, arguments...): type-checked, checked, named.
#pragma once

#include <type_traits>

#include "kernels/cuda/queue.h"
#include "kernels/cuda/simt.h"

namespace gradflow::kernels::cuda {

template <class... Parameters>
struct Kernel {
  const char* name;
  void (*entry)(Parameters...);
};

template <class... Parameters>
Kernel(const char*, void (*)(Parameters...)) -> Kernel<Parameters...>;

#define GRADFLOW_KERNEL(function) (::gradflow::kernels::cuda::Kernel{#function, function})

template <class... Parameters>
void launch(Queue& queue, const Kernel<Parameters...>& kernel, const BlockGrid& grid,
            std::type_identity_t<Parameters>... arguments) {
#ifdef __CUDACC__
  void* pointers[] = {&arguments...};
  queue.launch(kernel.name, grid, reinterpret_cast<const void*>(kernel.entry), pointers);
#else
  static_cast<void>(queue);
  simt::run(kernel.name, {grid.x, grid.y, 1}, {grid.threads_x, grid.threads_y, 1},
            [&] { kernel.entry(arguments...); });
#endif
}

}  // namespace gradflow::kernels::cuda
