#include "running_max_kernel.cuh"

void snm::pool_float16(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream) {
  launch_pool<__half, float, float, false>(arguments, scratch, stream);
}
