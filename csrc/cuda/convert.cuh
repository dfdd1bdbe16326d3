// Conversions to float32 that the kernels share.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace snm {

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(int32_t value) { return __int2float_rn(value); }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

// The halves of a word; bfloat16 has the upper bits of the same float32.
template <class T>
__device__ __forceinline__ float widen_low(uint32_t pair) {
  if constexpr (std::is_same_v<T, __half>) return __low2float(reinterpret_cast<__half2&>(pair));
  else return __uint_as_float(pair << 16);
}
template <class T>
__device__ __forceinline__ float widen_high(uint32_t pair) {
  if constexpr (std::is_same_v<T, __half>) return __high2float(reinterpret_cast<__half2&>(pair));
  else return __uint_as_float(pair & 0xffff0000u);
}

}  // namespace snm
