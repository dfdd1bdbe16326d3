// float16 and bfloat16 as 16-bit patterns: conversions without branches, of one value or of many.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "../rule.h"
#include "lanes.h"

namespace snm {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

SNM_INLINE uint32_t select(bool mask, uint32_t a, uint32_t b) { return mask ? a : b; }

// Patterns in the low halves of Uint.
template <class Float, class Uint>
SNM_INLINE Float widen_bfloat16(Uint bits) {
  return bits_as<Float>(bits << 16);
}

template <class V, class Uint>
SNM_INLINE typename V::Number widen_half(Uint bits) {
  const Uint sign = (bits & 0x8000u) << 16;
  const Uint rest = bits & 0x7fffu;
  // Exponent 31 (inf, NaN) becomes 255; the others are rebiased by 127 - 15.
  const Uint rebias = select(rest >= 0x7c00u, Uint{} + 0x70000000u, Uint{} + 0x38000000u);
  const Uint normal = (rest << 13) + rebias;
  const Uint subnormal = bits_as<Uint>(V::to_float(bits_as<typename V::Int>(rest)) * 0x1p-24f);
  return bits_as<typename V::Number>(select(rest < 0x0400u, subnormal, normal) | sign);
}

// Narrowing rounds to nearest even. What is narrowed is never NaN: it is a threshold or a multiple
// of one, and a silent neuron sends 0.
template <class Uint, class Float>
SNM_INLINE Uint narrow_bfloat16(Float value) {
  const Uint bits = bits_as<Uint>(value);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

template <class Uint, class Float>
SNM_INLINE Uint narrow_half(Float value) {
  const Uint bits = bits_as<Uint>(value);
  const Uint sign = (bits >> 16) & 0x8000u;
  const Uint rest = bits & 0x7fffffffu;
  const Uint rounded = rest + 0x0fffu + ((rest >> 13) & 1u);
  const Uint normal =
      select(rest >= 0x477ff000u, Uint{} + 0x7c00u, (rounded - 0x38000000u) >> 13);
  // Adding 1/2 leaves the value in units of 2^-24, rounded to nearest even, in the low bits.
  const Uint subnormal = bits_as<Uint>(bits_as<Float>(rest) + 0.5f) - 0x3f000000u;
  return select(rest < 0x38800000u, subnormal, normal) | sign;
}

SNM_INLINE float widen(float value) { return value; }
SNM_INLINE float widen(BFloat16 value) { return widen_bfloat16<float, uint32_t>(value.bits); }
SNM_INLINE float widen(Half value) { return widen_half<Scalar, uint32_t>(value.bits); }

template <class Out>
Out narrow(float value);

template <>
SNM_INLINE BFloat16 narrow<BFloat16>(float value) {
  return {static_cast<uint16_t>(narrow_bfloat16<uint32_t>(value))};
}

template <>
SNM_INLINE Half narrow<Half>(float value) {
  return {static_cast<uint16_t>(narrow_half<uint32_t>(value))};
}

SNM_INLINE Floats widen_halves(Shorts values) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, (__m256i)values);
#elif defined(__AVX2__) && defined(__F16C__)
  return (Floats)_mm256_cvtph_ps((__m128i)values);
#else
  return widen_half<Lanes>(extended(values));
#endif
}

}  // namespace snm
