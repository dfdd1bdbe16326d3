// float16 and bfloat16 as 16-bit patterns: branch-free conversions that compilers vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "../rule.h"
#include "loops.h"

namespace snm {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

SNM_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

SNM_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

SNM_INLINE float widen(float value) { return value; }
SNM_INLINE float widen(int32_t value) { return static_cast<float>(value); }
SNM_INLINE float widen(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

SNM_INLINE float widen(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t rest = value.bits & 0x7fffu;
  // Exponent 31 (inf, NaN) becomes 255; the others are rebiased by 127 - 15.
  const uint32_t rebias = rest >= 0x7c00u ? 0x70000000u : 0x38000000u;
  const uint32_t normal = (rest << 13) + rebias;
  const uint32_t subnormal = bits_of(static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f);
  return float_of((rest < 0x0400u ? subnormal : normal) | sign);
}

template <class Out>
Out narrow(float value);

// The narrowing conversions round to nearest even. Their argument is never NaN: it is a threshold
// or a multiple of one, and a silent neuron sends 0.
template <>
SNM_INLINE BFloat16 narrow<BFloat16>(float value) {
  const uint32_t bits = bits_of(value);
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
SNM_INLINE Half narrow<Half>(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t rest = bits & 0x7fffffffu;
  const uint32_t rounded = rest + 0x0fffu + ((rest >> 13) & 1u);
  const uint32_t normal = rest >= 0x477ff000u ? 0x7c00u : (rounded - 0x38000000u) >> 13;
  // Adding 1/2 leaves the value in units of 2^-24, rounded to nearest even, in the low bits.
  const uint32_t subnormal = bits_of(float_of(rest) + 0.5f) - 0x3f000000u;
  return {static_cast<uint16_t>((rest < 0x38800000u ? subnormal : normal) | sign)};
}

template <class In>
SNM_INLINE void widen_row(const In* row, int64_t count, float* to) {
  SNM_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) to[j] = widen(row[j]);
}

#ifdef __F16C__
// The processor's own conversion, which compilers don't find in widen().
template <>
SNM_INLINE void widen_row<Half>(const Half* row, int64_t count, float* to) {
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) {
    const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + j));
    _mm256_storeu_ps(to + j, _mm256_cvtph_ps(eight));
  }
  for (; j < count; ++j) to[j] = widen(row[j]);
}
#endif

template <class Out>
SNM_INLINE void narrow_row(const float* row, int64_t count, Out* to) {
  SNM_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) to[j] = narrow<Out>(row[j]);
}

}  // namespace snm
