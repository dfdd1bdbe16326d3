// The running maximum on CUDA devices: checks, sets device and stream, dispatches, registers.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../running_max_checks.h"
#include "running_max.h"

namespace snm {
namespace {

void pool_cuda(const RunningMaxArguments& arguments, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t bytes = pool_scratch_bytes(arguments);
  // The caching allocator keeps it for this stream until the kernel is done.
  std::optional<Tensor> scratch;
  if (bytes > 0) scratch = torch::stable::new_empty(x, {bytes}, ScalarType::Char);
  void* memory = bytes > 0 ? scratch->mutable_data_ptr() : nullptr;
  switch (arguments.input_type) {
    case DType::kFloat32: pool_float32(arguments, memory, on); break;
    case DType::kFloat16: pool_float16(arguments, memory, on); break;
    case DType::kBFloat16: pool_bfloat16(arguments, memory, on); break;
    default: pool_int8(arguments, memory, on); break;
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace
}  // namespace snm

STABLE_TORCH_LIBRARY_IMPL(snm_kernels, CUDA, library) {
  library.impl("running_max_pool", TORCH_BOX(&snm::running_max_pool_op<snm::pool_cuda>));
  library.impl("adaptive_running_max_pool",
               TORCH_BOX(&snm::adaptive_running_max_pool_op<snm::pool_cuda>));
}
