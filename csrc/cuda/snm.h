// The neuron on a CUDA device. Knows no framework: the caller sets device and stream.
#pragma once

#include <cuda_runtime_api.h>

#include "../arguments.h"

namespace snm {

// Launch over all neurons and time steps; Arguments hold device pointers. The drive's dtype is in
// the name, so that the instantiations of each compile side by side.
void launch_float32(const Arguments& arguments, cudaStream_t stream);
void launch_float16(const Arguments& arguments, cudaStream_t stream);
void launch_bfloat16(const Arguments& arguments, cudaStream_t stream);
void launch_int32(const Arguments& arguments, cudaStream_t stream);
// Where thresholds are int32 too, and all else.
void launch_integers(const Arguments& arguments, cudaStream_t stream);

}  // namespace snm
