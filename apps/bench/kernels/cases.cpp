// The list of benchmark cases, put together. An operation that the backend contract gains gets its lines in one of
// the cases_*.cpp; tests hold the list against the contract and against the kernels in the CUDA module.
#include "apps/bench/kernels/case_list.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {

std::vector<KernelCase> kernel_cases(DType dtype) {
  if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::bf16)
    throw InternalError("no kernels are benchmarked in " + std::string(name_of(dtype)));
  cases::CaseList list(dtype);
  list.pointwise();
  list.residual();
  list.measured_residual();
  list.scalars();
  list.fusions();
  list.batch_norm(true);
  list.batch_norm(false);
  list.pooling();
  list.matrices();
  list.loss();
  list.probes();
  list.inputs();
  if (dtype != DType::bf16) list.updates();  // moments and weights stay in full precision
  if (dtype == DType::f32) list.memory();
  return list.take();
}

}  // namespace gradflow::app
