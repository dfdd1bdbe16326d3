#include "running_max_packed.cuh"

void snm::pool_int8(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream) {
  if (arguments.shared) {
    if (scratch == nullptr && launch_packed(arguments, stream)) return;
    launch_pool<int8_t, int32_t, int32_t, false>(arguments, scratch, stream);
  } else {
    launch_pool<int8_t, int32_t, float, true>(arguments, scratch, stream);
  }
}
