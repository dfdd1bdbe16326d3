#include "snm_kernel.cuh"

void snm::launch_int32(const Arguments& arguments, cudaStream_t stream) {
  launch_spikes<int32_t>(arguments, stream);
}
