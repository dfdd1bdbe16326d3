// The op on CUDA devices: checks, sets device and stream, dispatches, registers.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../snm_checks.h"
#include "snm.h"

namespace snm {
namespace {

void launch_cuda(const Arguments& arguments, const Tensor& x) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  const auto on = static_cast<cudaStream_t>(stream);
  switch (arguments.drive_type) {
    case DType::kFloat32: launch_float32(arguments, on); break;
    case DType::kFloat16: launch_float16(arguments, on); break;
    case DType::kBFloat16: launch_bfloat16(arguments, on); break;
    default: (arguments.integers ? launch_integers : launch_int32)(arguments, on); break;
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace
}  // namespace snm

STABLE_TORCH_LIBRARY_IMPL(snm_kernels, CUDA, library) {
  library.impl("snm", TORCH_BOX(&snm::snm_op<snm::launch_cuda>));
  library.impl("snm_out", TORCH_BOX(&snm::snm_out_op<snm::launch_cuda>));
  library.impl("snm_counted", TORCH_BOX(&snm::snm_counted_op<snm::launch_cuda>));
  library.impl("snm_counted_out", TORCH_BOX(&snm::snm_counted_out_op<snm::launch_cuda>));
}
