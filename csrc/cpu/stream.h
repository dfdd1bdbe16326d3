// Stores that go past the caches, for rows that nobody reads soon.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "../rule.h"
#include "loops.h"

namespace snm {

#ifdef __SSE2__

constexpr bool kCanStream = true;

// A whole line, so that it leaves the core in one piece; `to` starts one.
SNM_INLINE void stream_line(const char* from, char* to) {
#ifdef __AVX512F__
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#else
  for (int64_t b = 0; b < kCacheLine; b += 16) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + b));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + b), part);
  }
#endif
}

// Streamed stores are seen by other threads only after this.
SNM_INLINE void finish_streams() { _mm_sfence(); }

#else

constexpr bool kCanStream = false;

SNM_INLINE void stream_line(const char* from, char* to) { std::memcpy(to, from, kCacheLine); }
SNM_INLINE void finish_streams() {}

#endif

// Copies a row; its ends, which share their lines with other rows, in the usual way.
template <class T>
SNM_INLINE void stream(const T* row, int64_t count, T* out) {
  const char* from = reinterpret_cast<const char*>(row);
  char* to = reinterpret_cast<char*>(out);
  int64_t left = count * static_cast<int64_t>(sizeof(T));
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % kCacheLine);
  const int64_t head = std::min(left, (kCacheLine - past) % kCacheLine);
  std::memcpy(to, from, static_cast<size_t>(head));
  for (from += head, to += head, left -= head; left >= kCacheLine; left -= kCacheLine) {
    stream_line(from, to);
    from += kCacheLine;
    to += kCacheLine;
  }
  std::memcpy(to, from, static_cast<size_t>(left));
}

}  // namespace snm
