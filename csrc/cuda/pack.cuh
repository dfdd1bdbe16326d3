// Adjacent elements of one thread, moved together.
#pragma once

#include <type_traits>

#include "convert.cuh"

namespace snm {

template <int kBytes>
using Word = std::conditional_t<
    kBytes == 16, uint4,
    std::conditional_t<kBytes == 8, uint2,
                       std::conditional_t<kBytes == 4, uint32_t,
                                          std::conditional_t<kBytes == 2, uint16_t, uint8_t>>>>;

// In words of at most 16 bytes, on which they have to start.
template <class T, int kCount>
struct Pack {
  static constexpr int kBytes = sizeof(T) * kCount;
  static constexpr int kWordBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kWords = kBytes / kWordBytes;
  using WordType = Word<kWordBytes>;

  union {
    WordType words[kWords];
    T values[kCount];
    Word<(kBytes < 4 ? kBytes : 4)> pairs[kBytes < 4 ? 1 : kBytes / 4];  // of half precision
  };

  __device__ Pack() {}

  __device__ __forceinline__ void load(const T* from) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) words[w] = __ldcs(reinterpret_cast<const WordType*>(from) + w);
  }

  __device__ __forceinline__ void store(T* to) const {
#pragma unroll
    for (int w = 0; w < kWords; ++w) __stcs(reinterpret_cast<WordType*>(to) + w, words[w]);
  }

  template <class Number>
  __device__ __forceinline__ void widen_to(Number (&wide)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kCount > 1 && sizeof(T) == 2) {
        wide[i] = i % 2 == 0 ? widen_low<T>(pairs[i / 2]) : widen_high<T>(pairs[i / 2]);
      } else {
        wide[i] = widen(values[i]);
      }
    }
  }
};

}  // namespace snm
