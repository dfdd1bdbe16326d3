// The neuron's kernel: a thread keeps a few adjacent neurons in registers and runs over time.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "convert.cuh"
#include "launch.cuh"
#include "snm.h"

namespace snm {

struct Nothing {};

// How neurons are dealt out to threads. kNeurons: adjacent ones of a thread; kAhead: steps whose
// drive is on its way while one is being computed; kBlocks: of those, a multiprocessor has
// registers for so many at least. docs/gpu.md has the arithmetic.
template <class In, bool kGraded>
struct Wide {
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 2;
  // 16 bytes of drive; half of that where the division of a graded rule needs the registers.
  static constexpr int kNeurons = (kGraded ? 8 : 16) / sizeof(In);
  static constexpr int kAhead = 4;
};

// For layers too small to fill the device: all multiprocessors get some.
struct Narrow {
  static constexpr int kThreads = 32;
  static constexpr int kBlocks = 16;
  static constexpr int kNeurons = 1;
  static constexpr int kAhead = 16;
};

template <class Out>
__device__ __forceinline__ Out sent(const Step<>& step) {
  if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, __nv_bfloat16>) return __float2bfloat16_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, int8_t>) return static_cast<int8_t>(step.s);
  else return step.amplitude;
}

template <int kBytes>
using Word = std::conditional_t<
    kBytes == 16, uint4,
    std::conditional_t<kBytes == 8, uint2,
                       std::conditional_t<kBytes == 4, uint32_t,
                                          std::conditional_t<kBytes == 2, uint16_t, uint8_t>>>>;

// The neurons of one thread: adjacent elements, moved in words of at most 16 bytes.
template <class T, int kCount>
struct Pack {
  static constexpr int kBytes = sizeof(T) * kCount;
  static constexpr int kWordBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kWords = kBytes / kWordBytes;
  using WordType = Word<kWordBytes>;

  union {
    WordType words[kWords];
    T values[kCount];
  };

  __device__ Pack() {}

  // `whole`: all kCount elements exist and start on a word; else the first `count` do.
  __device__ __forceinline__ void load(const T* from, bool whole, int count) {
    if (whole) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) words[w] = __ldcs(reinterpret_cast<const WordType*>(from) + w);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i < count) values[i] = from[i];
      }
    }
  }

  __device__ __forceinline__ void store(T* to, bool whole, int count) const {
    if (whole) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) __stcs(reinterpret_cast<WordType*>(to) + w, words[w]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i < count) to[i] = values[i];
      }
    }
  }
};

// The values of kCount adjacent neurons from n on.
template <int kCount>
__device__ __forceinline__ void gather(const Periodic& parameter, int64_t n,
                                       float (&values)[kCount]) {
  const int64_t index = n / parameter.inner;
  int64_t inside = n - index * parameter.inner;
  int64_t position = index % parameter.period;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = parameter.values[position];
    if (++inside == parameter.inner) {
      inside = 0;
      if (++position == parameter.period) position = 0;
    }
  }
}

// u <= just_below(bound) says what u < bound does: one comparison a step, not a choice of two.
__device__ __forceinline__ float just_below(float bound) {
  return bound == -INFINITY ? NAN : nextafterf(bound, -INFINITY);
}

template <class In, class Out, bool kGraded, bool kCounts, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    snm_kernel(const Arguments a, const bool aligned) {
  constexpr int kCount = Shape::kNeurons;
  constexpr int kAhead = Shape::kAhead;
  constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * Shape::kThreads + threadIdx.x) * kCount;
  if (n >= a.neurons) return;
  const int64_t there = a.neurons - n;
  const int count = there < kCount ? static_cast<int>(there) : kCount;
  const bool whole = kCount == 1 || (aligned && count == kCount);

  const In* drive = static_cast<const In*>(a.drive) + n;
  const In* residual = static_cast<const In*>(a.residual) + n;
  auto* to = static_cast<std::conditional_t<kSends, Out, In>*>(a.spikes) + n;
  const bool added = a.residual != nullptr;
  Pack<In, kCount> ahead[kAhead];
  Pack<In, kCount> residual_ahead[kAhead];
  const auto ask_for_next = [&](int k) {
    ahead[k].load(drive, whole, count);
    drive += a.drive_step;
    if (added) {
      residual_ahead[k].load(residual, whole, count);
      residual += a.residual_step;
    }
  };
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k < a.time_steps) ask_for_next(k);
  }

  float theta[kCount], bias[kCount];
  Thresholds<> own[kCount];
  Pack<float, kCount> v;
  Pack<int32_t, kCount> m, negative;
  gather(a.threshold, n, theta);
  if (a.bias.values != nullptr) gather(a.bias, n, bias);
  if (a.v_in != nullptr) v.load(a.v_in + n, whole, count);
  if (a.m_in != nullptr) m.load(a.m_in + n, whole, count);
  if (kCounts && a.negative_in != nullptr) negative.load(a.negative_in + n, whole, count);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    own[i] = thresholds(theta[i], a.rule);
    if (a.rule.strict) own[i].lower = just_below(own[i].lower);
    // The one float that added to any leaves it as it is.
    if (a.bias.values == nullptr) bias[i] = -0.0f;
    if (a.v_in == nullptr) v.values[i] = starting_membrane(own[i].theta, a.rule);
    if (a.m_in == nullptr) m.values[i] = 0;
    if (kCounts && a.negative_in == nullptr) negative.values[i] = 0;
  }

  Rule rule = a.rule;
  // The lower thresholds take care of it.
  rule.strict = false;
  const auto advance = [&](int k) {
    Pack<std::conditional_t<kSends, Out, In>, kCount> spikes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float c = widen(ahead[k].values[i]) + bias[i];
      if (added) c = c + widen(residual_ahead[k].values[i]);
      const Step<> done = step<kGraded>(c, own[i], v.values[i], m.values[i], rule);
      if constexpr (kCounts) negative.values[i] += done.corrects;
      if constexpr (kSends) spikes.values[i] = sent<Out>(done);
    }
    if constexpr (kSends) {
      spikes.store(to, whole, count);
      to += a.spikes_step;
    }
  };
  // Left at any step: were it only after kAhead of them, the compiler would read rows too early.
  const auto run = [&] {
    for (int64_t left = a.time_steps;; left -= kAhead) {
      const int steps = left < 2 * kAhead ? static_cast<int>(left) : 2 * kAhead;
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (k >= steps) return;
        advance(k);
        // Into the place that has just become free: moving a row would mean waiting for it.
        if (k + kAhead < steps) ask_for_next(k);
      }
    }
  };
  run();
  v.store(a.v_out + n, whole, count);
  m.store(a.m_out + n, whole, count);
  if constexpr (kCounts) negative.store(a.negative_out + n, whole, count);
}

// Whether every time slice starts on a 16-byte boundary, as far as it is touched.
template <class T>
bool starts_aligned(const void* pointer, int64_t step) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && step * sizeof(T) % 16 == 0;
}

// Of the current device; asked for once.
inline int64_t multiprocessors() {
  static const std::vector<int> counts = [] {
    int devices = 0;
    cudaGetDeviceCount(&devices);
    std::vector<int> found(devices);
    for (int d = 0; d < devices; ++d) {
      cudaDeviceGetAttribute(&found[d], cudaDevAttrMultiProcessorCount, d);
    }
    return found;
  }();
  int device = 0;
  cudaGetDevice(&device);
  return counts.at(device);
}

template <class Shape>
int64_t blocks_of(int64_t neurons) {
  constexpr int64_t kPerBlock = Shape::kThreads * Shape::kNeurons;
  return (neurons + kPerBlock - 1) / kPerBlock;
}

template <class In, class Out, bool kGraded, bool kCounts, class Shape>
void launch_shape(const Arguments& a, cudaStream_t stream) {
  bool aligned = starts_aligned<In>(a.drive, a.drive_step) &&
                 starts_aligned<In>(a.residual, a.residual_step) &&
                 starts_aligned<float>(a.v_in, 0) && starts_aligned<int32_t>(a.m_in, 0) &&
                 starts_aligned<float>(a.v_out, 0) && starts_aligned<int32_t>(a.m_out, 0) &&
                 starts_aligned<int32_t>(a.negative_in, 0) &&
                 starts_aligned<int32_t>(a.negative_out, 0);
  if constexpr (!std::is_same_v<Out, Nothing>) {
    aligned = aligned && starts_aligned<Out>(a.spikes, a.spikes_step);
  }
  const auto blocks = static_cast<unsigned>(blocks_of<Shape>(a.neurons));
  launch(snm_kernel<In, Out, kGraded, kCounts, Shape>, blocks, Shape::kThreads, 0, stream, a,
         aligned);
}

template <class In, class Out, bool kGraded, bool kCounts>
void launch_kernel(const Arguments& a, cudaStream_t stream) {
  using Many = Wide<In, kGraded>;
  // One wide block on every multiprocessor is enough for the memory's bandwidth.
  if (blocks_of<Many>(a.neurons) < multiprocessors()) {
    launch_shape<In, Out, kGraded, kCounts, Narrow>(a, stream);
  } else {
    launch_shape<In, Out, kGraded, kCounts, Many>(a, stream);
  }
}

template <class In, class Out, bool kCounts>
void launch_rule(const Arguments& a, cudaStream_t stream) {
  if (a.rule.max_spikes > 1) {
    launch_kernel<In, Out, true, kCounts>(a, stream);
  } else {
    launch_kernel<In, Out, false, kCounts>(a, stream);
  }
}

template <class In, class Out>
void launch_counts(const Arguments& a, cudaStream_t stream) {
  if (a.negative_out != nullptr) {
    launch_rule<In, Out, true>(a, stream);
  } else {
    launch_rule<In, Out, false>(a, stream);
  }
}

template <class In>
void launch_spikes(const Arguments& a, cudaStream_t stream) {
  switch (a.spikes_type) {
    case DType::kFloat32: return launch_counts<In, float>(a, stream);
    case DType::kFloat16: return launch_counts<In, __half>(a, stream);
    case DType::kBFloat16: return launch_counts<In, __nv_bfloat16>(a, stream);
    case DType::kInt8: return launch_counts<In, int8_t>(a, stream);
    default: return launch_counts<In, Nothing>(a, stream);
  }
}

}  // namespace snm
