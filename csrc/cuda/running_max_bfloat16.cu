#include "running_max_kernel.cuh"

void snm::pool_bfloat16(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream) {
  launch_pool<__nv_bfloat16, float, float, false>(arguments, scratch, stream);
}
