#include "snm_kernel.cuh"

void snm::launch_integers(const Arguments& arguments, cudaStream_t stream) {
  switch (arguments.spikes_type) {
    case DType::kInt8: return launch_rule<Integer, int8_t>(arguments, stream);
    default: return launch_rule<Integer, Nothing>(arguments, stream);
  }
}
