// How kernels are launched. Knows no framework.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace snm {

// Starts a kernel on so many blocks. Where it uses shared memory, a multiprocessor takes as much of
// its first-level cache for that as there is.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
            size_t bytes_of_shared_memory, cudaStream_t stream, Parameters... parameters) {
  if (bytes_of_shared_memory > 0) {
    // Not an attribute of the launch, which drivers for CUDA 12.0 to 12.4 don't know.
    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                         cudaSharedmemCarveoutMaxShared);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = bytes_of_shared_memory;
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, parameters...);
}

}  // namespace snm
