// The signed neuron with memory: the only place in C++ that knows the rule.
// snm_kernels/reference.py and snm_kernels/triton/kernel.py say the same, line for line.
#pragma once

#include <cmath>
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

// What a neuron compares with and what a spike carries. A silent neuron compares with NaN, with
// which every comparison is false, and carries 0.
struct Thresholds {
  float theta;
  float upper;
  float lower;
};

SNM_INLINE Thresholds thresholds(float threshold, const Rule& rule) {
  const bool silent = threshold == std::numeric_limits<float>::infinity();
  const float theta = silent ? 0.0f : threshold;
  const float upper = silent ? std::numeric_limits<float>::quiet_NaN() : threshold;
  const float lower = -(rule.negative_threshold * upper);
  return {theta, upper, lower};
}

SNM_INLINE float starting_membrane(float theta, const Rule& rule) { return rule.v_init * theta; }

struct Step {
  int32_t s;
  float amplitude;
};

// One time step with drive c. kGraded: the rule allows more than one spike a step.
template <bool kGraded>
SNM_INLINE Step step(float c, const Thresholds& own, float& v, int32_t& m, const Rule& rule) {
  const float u = v + c;
  const bool fires = (u >= own.upper) & (m < rule.count_max);
  const bool below = rule.strict ? u < own.lower : u <= own.lower;
  const bool corrects = below & (m > rule.count_min);
  int32_t s = static_cast<int32_t>(fires) - static_cast<int32_t>(corrects);
  if constexpr (kGraded) {
    const float gamma = static_cast<float>(rule.max_spikes);
    const float fit = fires ? std::floor(u / own.theta) : 0.0f;
    const uint32_t limit = static_cast<uint32_t>(static_cast<int32_t>(fit < gamma ? fit : gamma));
    const uint32_t room = static_cast<uint32_t>(rule.count_max) - static_cast<uint32_t>(m);
    s = fires ? static_cast<int32_t>(limit < room ? limit : room) : s;
  }
  const float amplitude = static_cast<float>(s) * own.theta;
  v = u - amplitude;
  m = m + s;
  return {s, amplitude};
}

}  // namespace snm
