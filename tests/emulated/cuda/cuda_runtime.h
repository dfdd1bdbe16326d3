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
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributePreferredSharedMemoryCarveout };
enum { cudaSharedmemCarveoutMaxShared = 100 };

using cudaStream_t = struct EmulatedStream*;

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    unsigned sharedMemCarveout;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
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
cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel,
                const std::function<void()>& thread);
void allow_shared_memory(const void* kernel, size_t bytes);

}  // namespace emulated

template <class... Parameters, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Given... given) {
  return emulated::run(*config, reinterpret_cast<const void*>(kernel), [&] { kernel(given...); });
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  emulated::allow_shared_memory(reinterpret_cast<const void*>(kernel), bytes);
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
inline int __float_as_int(float value) { return __emulated_bits<int>(value); }
inline float __int_as_float(int value) { return __emulated_bits<float>(value); }

inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

// Byte n of the result is byte selector[n] of the eight of low and high.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  if ((selector & ~0x7777u) != 0) emulated::fault("__byte_perm with selector ", selector);
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int n = 0; n < 4; ++n) {
    const unsigned chosen = selector >> (4 * n) & 7;
    result |= static_cast<unsigned>(bytes >> (8 * chosen) & 0xff) << (8 * n);
  }
  return result;
}
