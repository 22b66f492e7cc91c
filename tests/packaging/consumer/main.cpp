// A program outside gradflow that uses its host backend directly.
#include <gradflow/engine/version.h>
#include <gradflow/kernels/backend.h>

#include <array>
#include <iostream>

int main() {
  using namespace gradflow::kernels;
  const auto backend = open_cpu();
  const std::array<float, 6> a{1, 2, 3, 4, 5, 6}, b{1, 0, 0, 1, 1, 1};
  std::array<float, 4> y{};
  backend->prepare_matmul({.m = 2, .n = 2, .k = 3})->run(a.data(), b.data(), nullptr, y.data(), nullptr);
  const bool right = y == std::array<float, 4>{4, 5, 10, 11};
  std::cout << "gradflow " << gradflow::version() << " on " << backend->info().model << "\n"
            << (right ? "consumer: ok\n" : "consumer: wrong product\n");
  return right ? 0 : 1;
}
