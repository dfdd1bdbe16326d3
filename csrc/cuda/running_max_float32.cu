#include "running_max_kernel.cuh"

void snm::pool_float32(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream) {
  launch_pool<float, float, float, false>(arguments, scratch, stream);
}
