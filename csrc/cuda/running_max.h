// The running maximum on a CUDA device. Knows no framework: the caller sets device and stream.
#pragma once

#include <cuda_runtime_api.h>

#include "../running_max_rule.h"

namespace snm {

// Windows of at most this many taps keep their inputs' totals in registers, and where in a time
// slice they lie, in 32 bits; the totals of larger ones lie in scratch memory.
constexpr int64_t kMostTapsInRegisters = 9;

SNM_INLINE int64_t taps_of_window(const RunningMaxArguments& a) {
  return a.windows[0].kernel * a.windows[1].kernel * a.windows[2].kernel;
}

// Bytes of scratch memory that a launch needs.
SNM_INLINE int64_t pool_scratch_bytes(const RunningMaxArguments& a) {
  const int64_t planes = a.batch * a.channels;
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  const bool in_registers = taps_of_window(a) <= kMostTapsInRegisters &&
                            planes * inputs_of(a) <= most && planes * outputs_of(a) <= most &&
                            fits_int32(a.windows[0]) && fits_int32(a.windows[1]) &&
                            fits_int32(a.windows[2]);
  return in_registers ? 0 : taps_of_window(a) * planes * outputs_of(a) * 4;
}

// Launch over all windows and time steps. The input's dtype is in the name, so that the
// instantiations of each compile side by side.
void pool_int8(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream);
void pool_float32(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream);
void pool_float16(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream);
void pool_bfloat16(const RunningMaxArguments& arguments, void* scratch, cudaStream_t stream);

}  // namespace snm
