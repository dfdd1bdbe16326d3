#include "snm_kernel.cuh"

void snm::launch_float16(const Arguments& arguments, cudaStream_t stream) {
  launch_spikes<__half>(arguments, stream);
}
