// How kernels are launched. Knows no framework.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace snm {

// Starts a kernel on so many blocks. What shared memory the blocks of a multiprocessor could use
// they get, and its first-level cache the rest.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads,
            size_t bytes_of_shared_memory, cudaStream_t stream, Parameters... parameters) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attribute.val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = bytes_of_shared_memory;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = bytes_of_shared_memory > 0 ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, parameters...);
}

}  // namespace snm
