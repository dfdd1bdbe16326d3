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

// The threshold of a silent neuron of integers, the largest of int32; and the least of int32.
constexpr int32_t kSilent = std::numeric_limits<int32_t>::max();
constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();

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
  static constexpr bool kIntegers = false;
  using Number = float;  // drives, thresholds, membranes
  using Int = int32_t;   // spikes and memories
  using Mask = bool;

  template <class T>
  static SNM_INLINE T select(Mask mask, T a, T b) {
    return mask ? a : b;
  }
  // a where the first mask holds, else b where the second does, else 0.
  template <class T>
  static SNM_INLINE T either(Mask first, T a, Mask second, T b) {
    return first ? a : second ? b : T{};
  }
  // The difference s of two masks; as many thetas; u less those; and s added to a count.
  static SNM_INLINE Int sign(Mask first, Mask second) {
    return static_cast<int32_t>(first) - static_cast<int32_t>(second);
  }
  static SNM_INLINE Number amplitude(Mask first, Mask second, Int, Number theta) {
    return either(first, theta, second, -theta);
  }
  static SNM_INLINE Number less(Number u, Number amplitude, Int, Number) { return u - amplitude; }
  static SNM_INLINE Int count(Int value, Mask first, Mask second, Int) {
    return value + sign(first, second);
  }
  static SNM_INLINE Number add(Number a, Number b) { return a + b; }
  static SNM_INLINE Number times(Int s, Number theta) { return to_float(s) * theta; }
  // u / theta where it fires, else 0; of integers, what that has before the point.
  static SNM_INLINE Number quotient(Mask fires, Number u, Number theta) {
    return select(fires, u / theta, 0.0f);
  }
  static SNM_INLINE Int truncate(Number value) { return static_cast<int32_t>(value); }
  static SNM_INLINE Number number(int32_t value) { return static_cast<float>(value); }
  static SNM_INLINE Mask reaches(Number u, Number upper) { return u >= upper; }
  static SNM_INLINE float to_float(Int value) { return static_cast<float>(value); }
};

// One neuron's numbers where all of them are integers. Sums wrap around.
struct IntegerScalar : Scalar {
  static constexpr bool kIntegers = true;
  using Number = int32_t;

  static SNM_INLINE Number add(Number a, Number b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
  static SNM_INLINE Number less(Number u, Number amplitude, Int, Number) {
    return static_cast<int32_t>(static_cast<uint32_t>(u) - static_cast<uint32_t>(amplitude));
  }
  static SNM_INLINE Number amplitude(Mask first, Mask second, Int s, Number theta) {
    return either(first, theta, second, less(0, theta, s, theta));
  }
  static SNM_INLINE Number times(Int s, Number theta) {
    return static_cast<int32_t>(static_cast<uint32_t>(s) * static_cast<uint32_t>(theta));
  }
  static SNM_INLINE Number quotient(Mask fires, Number u, Number theta) {
    return fires ? u / theta : 0;
  }
  static SNM_INLINE Int truncate(Number value) { return value; }
  static SNM_INLINE Number number(int32_t value) { return value; }
  // The upper threshold is one less than theta, so that a silent neuron's is out of reach.
  static SNM_INLINE Mask reaches(Number u, Number upper) { return u > upper; }
};

// What a neuron compares with and what a spike carries. A silent neuron compares with NaN, with
// which every comparison is false, and carries 0.
template <class V = Scalar>
struct Thresholds {
  typename V::Number theta;
  typename V::Number upper;
  typename V::Number lower;
};

template <class V = Scalar>
SNM_INLINE Thresholds<V> thresholds(typename V::Number threshold, const Rule& rule) {
  using Number = typename V::Number;
  const Number infinity = Number{} + std::numeric_limits<float>::infinity();
  const Number nan = Number{} + std::numeric_limits<float>::quiet_NaN();
  const typename V::Mask silent = threshold == infinity;
  const Number theta = V::select(silent, Number{}, threshold);
  const Number upper = V::select(silent, nan, threshold);
  const Number lower = -(rule.negative_threshold * upper);
  return {theta, upper, lower};
}

template <class V = Scalar>
SNM_INLINE typename V::Number starting_membrane(typename V::Number theta, const Rule& rule) {
  return rule.v_init * theta;
}

// A number within int32, NaN at the lower end.
SNM_INLINE double bounded(double value) {
  const double raised = value > kLeast ? value : kLeast;
  return raised < kSilent ? raised : kSilent;
}

// The same of integers. A silent neuron compares with what no integer is above or below. Whether
// the rule is strict or not, u < lower says whether u is under -ν·θ, a real number and exact here.
SNM_INLINE Thresholds<IntegerScalar> integer_thresholds(int32_t theta, const Rule& rule) {
  using V = IntegerScalar;
  const bool silent = theta == kSilent;
  const int32_t upper = silent ? theta : V::add(theta, -1);
  const double real = theta * -static_cast<double>(rule.negative_threshold);
  // Of what is at most 0, the conversion to an integer is the ceiling.
  const int32_t ceiling = static_cast<int32_t>(bounded(real));
  const int32_t lower = !rule.strict && ceiling == real ? V::add(ceiling, 1) : ceiling;
  return {theta, upper, silent ? kLeast : lower};
}

SNM_INLINE int32_t integer_starting_membrane(int32_t theta, const Rule& rule) {
  const double fraction = theta == kSilent ? 0.0 : static_cast<double>(rule.v_init);
  const double real = bounded(theta * fraction);
  const int32_t cut = static_cast<int32_t>(real);
  return cut - static_cast<int32_t>(cut > real);
}

template <class V = Scalar>
struct Step {
  typename V::Mask fires;
  typename V::Mask corrects;
  typename V::Int s;
  typename V::Number amplitude;
};

// One time step with drive c. kGraded: the rule allows more than one spike a step. A GPU has bounds
// of the count of its own, see csrc/cuda/ternary.cuh. Integers take a rule that is strict.
template <bool kGraded, class V = Scalar, class Limits = Rule>
SNM_INLINE Step<V> step(typename V::Number c, const Thresholds<V>& own, typename V::Number& v,
                        typename V::Int& m, const Limits& rule) {
  using Number = typename V::Number;
  using Int = typename V::Int;
  using Mask = typename V::Mask;
  const Number u = V::add(v, c);
  const Mask fires = V::reaches(u, own.upper) & (m < rule.count_max);
  const Mask below = rule.strict ? u < own.lower : u <= own.lower;
  const Mask corrects = below & (m > rule.count_min);
  Int s = V::sign(fires, corrects);
  Number amplitude = V::amplitude(fires, corrects, s, own.theta);
  if constexpr (kGraded) {
    const Number gamma = V::number(rule.max_spikes);
    // Of what is at least 0, the conversion to an integer is the floor.
    const Number fit = V::quotient(fires, u, own.theta);
    const Int limit = V::truncate(V::select(fit < gamma, fit, gamma));
    // The limit, or what is left up to count_max; neither difference overflows.
    const Int full = rule.count_max - limit;
    s = V::select(fires, rule.count_max - V::select(m > full, m, full), s);
    amplitude = V::times(s, own.theta);
    v = V::less(u, amplitude, s, own.theta);
    m = m + s;
  } else {
    v = V::less(u, amplitude, s, own.theta);
    m = V::count(m, fires, corrects, s);
  }
  return {fires, corrects, s, amplitude};
}

}  // namespace snm
