// The signed neuron with memory: the only place in C++ that knows the rule.
// snm_kernels/reference.py and snm_kernels/triton/snm_kernel.py say the same, line for line.
#pragma once

#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define SNM_INLINE __host__ __device__ __forceinline__
#else
#define SNM_INLINE inline __attribute__((always_inline))
#endif

namespace snm {

struct Rule {
  float v_init;
  float negative_threshold;  // NaN: no negative spikes
  bool strict;
  int32_t max_spikes;
  int32_t count_min;
  int32_t count_max;
};

// What a step computes with: one neuron's numbers. csrc/cpu/lanes.h has those of several at once.
struct Scalar {
  using Float = float;
  using Int = int32_t;
  using Mask = bool;

  template <class T>
  static SNM_INLINE T select(Mask mask, T a, T b) {
    return mask ? a : b;
  }
  // a where the first mask holds, else b where the second does, else 0.
  static SNM_INLINE Float either(Mask first, Float a, Mask second, Float b) {
    return first ? a : second ? b : 0.0f;
  }
  // The difference s of two masks; as many thetas; u less those; and s added to a count.
  static SNM_INLINE Int sign(Mask first, Mask second) {
    return static_cast<int32_t>(first) - static_cast<int32_t>(second);
  }
  static SNM_INLINE Float amplitude(Mask first, Mask second, Int, Float theta) {
    return either(first, theta, second, -theta);
  }
  static SNM_INLINE Float less(Float u, Float amplitude, Int, Float) { return u - amplitude; }
  static SNM_INLINE Int count(Int value, Mask first, Mask second, Int) {
    return value + sign(first, second);
  }
  static SNM_INLINE Float to_float(Int value) { return static_cast<float>(value); }
  static SNM_INLINE Int truncate(Float value) { return static_cast<int32_t>(value); }
};

// What a neuron compares with and what a spike carries. A silent neuron compares with NaN, with
// which every comparison is false, and carries 0.
template <class V = Scalar>
struct Thresholds {
  typename V::Float theta;
  typename V::Float upper;
  typename V::Float lower;
};

template <class V = Scalar>
SNM_INLINE Thresholds<V> thresholds(typename V::Float threshold, const Rule& rule) {
  using Float = typename V::Float;
  const Float infinity = Float{} + std::numeric_limits<float>::infinity();
  const Float nan = Float{} + std::numeric_limits<float>::quiet_NaN();
  const typename V::Mask silent = threshold == infinity;
  const Float theta = V::select(silent, Float{}, threshold);
  const Float upper = V::select(silent, nan, threshold);
  const Float lower = -(rule.negative_threshold * upper);
  return {theta, upper, lower};
}

template <class V = Scalar>
SNM_INLINE typename V::Float starting_membrane(typename V::Float theta, const Rule& rule) {
  return rule.v_init * theta;
}

template <class V = Scalar>
struct Step {
  typename V::Mask fires;
  typename V::Mask corrects;
  typename V::Int s;
  typename V::Float amplitude;
};

// One time step with drive c. kGraded: the rule allows more than one spike a step. A GPU has bounds
// of the count of its own, see csrc/cuda/ternary.cuh.
template <bool kGraded, class V = Scalar, class Limits = Rule>
SNM_INLINE Step<V> step(typename V::Float c, const Thresholds<V>& own, typename V::Float& v,
                        typename V::Int& m, const Limits& rule) {
  using Float = typename V::Float;
  using Int = typename V::Int;
  using Mask = typename V::Mask;
  const Float u = v + c;
  const Mask fires = (u >= own.upper) & (m < rule.count_max);
  const Mask below = rule.strict ? u < own.lower : u <= own.lower;
  const Mask corrects = below & (m > rule.count_min);
  Int s = V::sign(fires, corrects);
  Float amplitude = V::amplitude(fires, corrects, s, own.theta);
  if constexpr (kGraded) {
    const Float zero{};
    const Float gamma = zero + static_cast<float>(rule.max_spikes);
    // Of what is at least 0, the conversion to an integer is the floor.
    const Float fit = V::select(fires, u / own.theta, zero);
    const Int limit = V::truncate(V::select(fit < gamma, fit, gamma));
    // The limit, or what is left up to count_max; neither difference overflows.
    const Int full = rule.count_max - limit;
    s = V::select(fires, rule.count_max - V::select(m > full, m, full), s);
    amplitude = V::to_float(s) * own.theta;
    v = u - amplitude;
    m = m + s;
  } else {
    v = V::less(u, amplitude, s, own.theta);
    m = V::count(m, fires, corrects, s);
  }
  return {fires, corrects, s, amplitude};
}

}  // namespace snm
