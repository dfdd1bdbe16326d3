// What a neuron of one spike a step computes with on a GPU. Comparisons, choices and additions of
// integers run at half the rate of additions and products of float32 there, so the memory and the
// spike are float32, which is exact up to 2^24.
#pragma once

#include <type_traits>

#include "../arguments.h"

namespace snm {

// The numbers of csrc/rule.h.
struct Ternary : Scalar {
  using Int = float;

  static __device__ __forceinline__ float sign(bool first, bool second) {
    return first ? 1.0f : second ? -1.0f : 0.0f;
  }
  // The threshold is finite here: that of a silent neuron is 0.
  static __device__ __forceinline__ float amplitude(bool, bool, float s, float theta) {
    return s * theta;
  }
  // The product is exact, so that rounding once is rounding as u - amplitude does.
  static __device__ __forceinline__ float less(float u, float, float s, float theta) {
    return __fmaf_rn(-s, theta, u);
  }
  static __device__ __forceinline__ float count(float value, bool, bool, float s) {
    return value + s;
  }
};

// A launch has no more steps than this.
constexpr int64_t kMostSteps = int64_t{1} << 22;

// How a launch keeps the memory of one neuron. With one spike a step: by how much it has changed,
// which kMostSteps bounds, beside how far it may change.
template <bool kGraded>
struct Memory {
  static constexpr bool kFromStart = true;
  using Lanes = Ternary;
  struct Limits {
    static constexpr bool strict = false;
    float count_min;
    float count_max;
  };

  // Farther than the steps of a launch lead is as good as any.
  static __device__ __forceinline__ float near(int64_t distance) {
    constexpr int64_t far = 2 * kMostSteps;
    return static_cast<float>(distance < -far ? -far : distance > far ? far : distance);
  }
  static __device__ __forceinline__ Limits limits(const Rule& rule, int32_t start) {
    return {near(int64_t{rule.count_min} - start), near(int64_t{rule.count_max} - start)};
  }
  static __device__ __forceinline__ float inside(int32_t) { return 0.0f; }
  static __device__ __forceinline__ int32_t outside(int32_t start, float m) {
    return start + static_cast<int32_t>(m);
  }
};

// As it is.
template <class V>
struct PlainMemory {
  static constexpr bool kFromStart = false;
  using Lanes = V;
  using Limits = Rule;

  static __device__ __forceinline__ Limits limits(const Rule& rule, int32_t) {
    Rule own = rule;
    // The lower thresholds take care of it.
    own.strict = V::kIntegers;
    return own;
  }
  static __device__ __forceinline__ int32_t inside(int32_t start) { return start; }
  static __device__ __forceinline__ int32_t outside(int32_t, int32_t m) { return m; }
};

// Where a step may send many.
template <>
struct Memory<true> : PlainMemory<Scalar> {};

// Of a drive's neurons.
template <class In, bool kGraded>
using MemoryOf =
    std::conditional_t<std::is_same_v<In, Integer>, PlainMemory<IntegerScalar>, Memory<kGraded>>;

}  // namespace snm
