// Conversions to float32 that the kernels share.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace snm {

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(int32_t value) { return __int2float_rn(value); }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

}  // namespace snm
