#include "snm_kernel.cuh"

void snm::launch_bfloat16(const Arguments& arguments, cudaStream_t stream) {
  launch_spikes<__nv_bfloat16>(arguments, stream);
}
