// What the CPU kernels' loops share.
#pragma once

#include <cstdint>

#include "../rule.h"

// The iterations of the next loop touch nothing that another one writes.
#ifdef __clang__
#define SNM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SNM_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace snm {

constexpr int64_t kCacheLine = 64;

// The hardware's prefetcher stops at a page, and every time step lies in pages of its own; so the
// next steps' rows are asked for while these are computed.
template <int kWrite, class T>
SNM_INLINE void prefetch(const T* row, int64_t count) {
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int64_t b = 0; b < count * static_cast<int64_t>(sizeof(T)); b += kCacheLine) {
    __builtin_prefetch(bytes + b, kWrite, 3);
  }
}

}  // namespace snm
