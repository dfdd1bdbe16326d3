// Vectors as wide as the instruction set's registers, and what a step of the neuron asks of them.
// Arithmetic and comparisons are the compiler's own; a mask's lanes are 0 or -1.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "../rule.h"

namespace snm {
// Every instruction set has its own: nothing of this may be shared between their object files.
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Uints = uint32_t __attribute__((vector_size(4 * kLanes)));
using Shorts = uint16_t __attribute__((vector_size(2 * kLanes)));
using Bytes = int8_t __attribute__((vector_size(kLanes)));

template <class To, class From>
SNM_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T>
SNM_INLINE T select(Ints mask, T a, T b) {
#ifdef __AVX512F__
  return mask ? a : b;  // compiled to masked instructions
#else
  return (T)(((Ints)a & mask) | ((Ints)b & ~mask));
#endif
}

// For snm::step.
struct Lanes {
  static constexpr bool kIntegers = false;
  using Number = Floats;
  using Int = Ints;
  using Mask = Ints;

  template <class T>
  static SNM_INLINE T select(Mask mask, T a, T b) {
    return snm::select(mask, a, b);
  }
#ifdef __AVX512F__
  template <class T>
  static SNM_INLINE T either(Mask first, T a, Mask second, T b) {
    return first ? a : second ? b : T{};
  }
  static SNM_INLINE Int sign(Mask first, Mask second) {
    const Int up = first ? Int{} + 1 : Int{};
    return second ? up - 1 : up;
  }
  static SNM_INLINE Int count(Int value, Mask first, Mask second, Int = Int{}) {
    // Unsigned, because what is not chosen may wrap around.
    const Uints once = first ? (Uints)value + 1 : (Uints)value;
    return (Int)(second ? once - 1 : once);
  }
#else
  template <class T>
  static SNM_INLINE T either(Mask first, T a, Mask second, T b) {
    return (T)(((Int)a & first) | ((Int)b & second & ~first));
  }
  static SNM_INLINE Int sign(Mask first, Mask second) { return second - first; }
  static SNM_INLINE Int count(Int value, Mask first, Mask second, Int = Int{}) {
    return value + sign(first, second);
  }
#endif
  static SNM_INLINE Number amplitude(Mask first, Mask second, Int, Number theta) {
    return either(first, theta, second, -theta);
  }
  static SNM_INLINE Number less(Number u, Number amplitude, Int, Number) { return u - amplitude; }
  static SNM_INLINE Number add(Number a, Number b) { return a + b; }
  static SNM_INLINE Number times(Int s, Number theta) { return to_float(s) * theta; }
  static SNM_INLINE Number quotient(Mask fires, Number u, Number theta) {
    return select(fires, u / theta, Number{});
  }
  static SNM_INLINE Int truncate(Number values) { return __builtin_convertvector(values, Int); }
  static SNM_INLINE Number number(int32_t value) { return Number{} + static_cast<float>(value); }
  static SNM_INLINE Mask reaches(Number u, Number upper) { return u >= upper; }
  static SNM_INLINE Floats to_float(Int values) { return __builtin_convertvector(values, Floats); }
};

// The same where all numbers are integers. Sums wrap around, as unsigned ones do.
struct IntegerLanes : Lanes {
  static constexpr bool kIntegers = true;
  using Number = Ints;

  static SNM_INLINE Number add(Number a, Number b) { return (Number)((Uints)a + (Uints)b); }
  static SNM_INLINE Number less(Number u, Number amplitude, Int, Number) {
    return (Number)((Uints)u - (Uints)amplitude);
  }
  static SNM_INLINE Number amplitude(Mask first, Mask second, Int s, Number theta) {
    return either(first, theta, second, less(Number{}, theta, s, theta));
  }
  static SNM_INLINE Number times(Int s, Number theta) {
    return (Number)((Uints)s * (Uints)theta);
  }
  // No instruction set divides vectors of integers. The quotient of floats is off by one at most where
  // it is below 128, and a step sends no more than 127.
  static SNM_INLINE Number quotient(Mask fires, Number u, Number theta) {
    const Number taken = select(fires, u, Number{});
    const Floats ratio = to_float(taken) / to_float(theta);
    const Floats most = Floats{} + 127.0f;
    const Int close = Lanes::truncate(select(ratio < most, ratio, most));
    const Number rest = less(taken, times(close, theta), close, theta);
    return close - (Int)(rest >= theta) + (Int)(rest < 0);
  }
  static SNM_INLINE Int truncate(Number values) { return values; }
  static SNM_INLINE Number number(int32_t value) { return Number{} + value; }
  static SNM_INLINE Mask reaches(Number u, Number upper) { return u > upper; }
};

// Patterns of 16 bits in the low halves of 32, and back; the low bytes of small numbers, and back.
#if defined(__AVX512F__)
SNM_INLINE Ints widened(Bytes values) {
  return (Ints)_mm512_maskz_cvtepi8_epi32(0xffff, (__m128i)values);
}
SNM_INLINE Uints extended(Shorts values) {
  return (Uints)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)values);
}
SNM_INLINE Shorts low_halves(Uints values) {
  return (Shorts)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)values);
}
SNM_INLINE Bytes low_bytes(Ints values) {
  return (Bytes)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)values);
}
#elif defined(__AVX2__)
SNM_INLINE Ints widened(Bytes values) {
  return (Ints)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bits_as<int64_t>(values)));
}
SNM_INLINE Uints extended(Shorts values) { return (Uints)_mm256_cvtepu16_epi32((__m128i)values); }
SNM_INLINE Shorts low_halves(Uints values) {
  const __m256i both = (__m256i)values;
  return (Shorts)_mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
}
SNM_INLINE Bytes low_bytes(Ints values) {
  const __m256i both = (__m256i)values;
  const __m128i halves =
      _mm_packs_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  return bits_as<Bytes>(_mm_cvtsi128_si64(_mm_packs_epi16(halves, halves)));
}
#elif defined(__SSE2__)
SNM_INLINE Ints widened(Bytes values) {
  const __m128i row = _mm_cvtsi32_si128(bits_as<int32_t>(values));
  const __m128i twice = _mm_unpacklo_epi8(row, row);
  return (Ints)_mm_srai_epi32(_mm_unpacklo_epi16(twice, twice), 24);
}
SNM_INLINE Uints extended(Shorts values) {
  const __m128i row = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&values));
  return (Uints)_mm_unpacklo_epi16(row, _mm_setzero_si128());
}
SNM_INLINE Shorts low_halves(Uints values) {
  // Signed, so that the saturation of packs changes nothing.
  const __m128i halves = (__m128i)((Ints)(values << 16) >> 16);
  return bits_as<Shorts>(_mm_cvtsi128_si64(_mm_packs_epi32(halves, halves)));
}
SNM_INLINE Bytes low_bytes(Ints values) {
  const __m128i halves = _mm_packs_epi32((__m128i)values, (__m128i)values);
  return bits_as<Bytes>(_mm_cvtsi128_si32(_mm_packs_epi16(halves, halves)));
}
#else
SNM_INLINE Ints widened(Bytes values) { return __builtin_convertvector(values, Ints); }
SNM_INLINE Uints extended(Shorts values) { return __builtin_convertvector(values, Uints); }
SNM_INLINE Shorts low_halves(Uints values) { return __builtin_convertvector(values, Shorts); }
SNM_INLINE Bytes low_bytes(Ints values) { return __builtin_convertvector(values, Bytes); }
#endif

// A vector from memory, or back; of the last one only the first `bytes`, and zeros behind them.
template <class Vector, bool kWhole = true>
SNM_INLINE Vector load(const void* from, int64_t bytes = sizeof(Vector)) {
  Vector values{};
  std::memcpy(&values, from, kWhole ? sizeof values : static_cast<size_t>(bytes));
  return values;
}

template <bool kWhole = true, class Vector>
SNM_INLINE void store(const Vector& values, void* to, int64_t bytes = sizeof(Vector)) {
  std::memcpy(to, &values, kWhole ? sizeof values : static_cast<size_t>(bytes));
}

}  // namespace
}  // namespace snm
