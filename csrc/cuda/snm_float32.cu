#include "snm_kernel.cuh"

void snm::launch_float32(const Arguments& arguments, cudaStream_t stream) {
  launch_spikes<float>(arguments, stream);
}
