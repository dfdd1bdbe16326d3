// A stand-in for the CUDA runtime with which kernels run on the host: one thread after the other,
// from its first to its last instruction.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <sstream>
#include <stdexcept>

#define __global__
#define __host__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline thread_local uint3 blockIdx, threadIdx;
inline thread_local dim3 gridDim, blockDim;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorLaunchFailure };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributePreferredSharedMemoryCarveout };
enum { cudaSharedmemCarveoutMaxShared = 100 };

using cudaStream_t = struct EmulatedStream*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace emulated {

// What went wrong in the thread that is running; the launch reports it.
template <class... Words>
[[noreturn]] void fault(const Words&... words) {
  std::ostringstream text;
  text << "block " << blockIdx.x << ", thread " << threadIdx.x << ": ";
  (text << ... << words);
  throw std::runtime_error(text.str());
}

inline void check_aligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  fault(what, " of ", bytes, " bytes at the misaligned address ", address);
}

// Runs `thread` for all threads of a launch: block by block, both in shuffled order.
cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& thread);

}  // namespace emulated

template <class... Parameters, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Given... given) {
  return emulated::run(*config, [&] { kernel(given...); });
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

template <class T>
T __ldcs(const T* from) {
  emulated::check_aligned(from, sizeof(T), "a load");
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  emulated::check_aligned(to, sizeof(T), "a store");
  *to = value;
}

template <class To, class From>
To __emulated_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof(To));
  return bits;
}
inline unsigned __float_as_uint(float value) { return __emulated_bits<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return __emulated_bits<float>(value); }

inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

// The sum of c and of the products of four signed bytes each.
inline int __dp4a(int a, int b, int c) {
  unsigned sum = static_cast<unsigned>(c);
  for (int n = 0; n < 4; ++n) {
    sum += static_cast<unsigned>(static_cast<int8_t>(a >> (8 * n)) * static_cast<int8_t>(b >> (8 * n)));
  }
  return static_cast<int>(sum);
}
