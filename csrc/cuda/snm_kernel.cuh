// The neuron's kernel: a thread keeps a few adjacent neurons in registers and runs over time.
#pragma once

#include <type_traits>

#include "convert.cuh"
#include "snm.h"

namespace snm {

struct Nothing {};

constexpr int kThreads = 256;
// Steps whose drive is on its way while one is being computed.
constexpr int kAhead = 4;

template <class Out>
__device__ __forceinline__ Out sent(const Step& step) {
  if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, __nv_bfloat16>) return __float2bfloat16_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, int8_t>) return static_cast<int8_t>(step.s);
  else return step.amplitude;
}

template <int kBytes>
using Word = std::conditional_t<
    kBytes == 16, uint4,
    std::conditional_t<kBytes == 8, uint2, std::conditional_t<kBytes == 4, uint32_t, uint16_t>>>;

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

// Adjacent neurons of one thread: 16 bytes of drive; half of that where the division of a graded
// rule needs the registers.
template <class In, bool kGraded>
constexpr int kNeurons = (kGraded ? 8 : 16) / sizeof(In);

template <class In, class Out, bool kGraded>
__global__ void __launch_bounds__(kThreads, 2) snm_kernel(const Arguments a, const bool aligned) {
  constexpr int kCount = kNeurons<In, kGraded>;
  constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  if (n >= a.neurons) return;
  const int64_t left = a.neurons - n;
  const int count = left < kCount ? static_cast<int>(left) : kCount;
  const bool whole = aligned && count == kCount;

  const In* drive = static_cast<const In*>(a.drive) + n;
  const In* residual = static_cast<const In*>(a.residual) + n;
  const bool added = a.residual != nullptr;
  const bool biased = a.bias.values != nullptr;
  Pack<In, kCount> ahead[kAhead];
  Pack<In, kCount> residual_ahead[kAhead];
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k < a.time_steps) {
      ahead[k].load(drive + k * a.drive_step, whole, count);
      if (added) residual_ahead[k].load(residual + k * a.residual_step, whole, count);
    }
  }

  float theta[kCount], bias[kCount];
  Thresholds own[kCount];
  Pack<float, kCount> v;
  Pack<int32_t, kCount> m;
  gather(a.threshold, n, theta);
  if (biased) gather(a.bias, n, bias);
  if (a.v_in != nullptr) v.load(a.v_in + n, whole, count);
  if (a.m_in != nullptr) m.load(a.m_in + n, whole, count);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    own[i] = thresholds(theta[i], a.rule);
    if (a.v_in == nullptr) v.values[i] = starting_membrane(own[i].theta, a.rule);
    if (a.m_in == nullptr) m.values[i] = 0;
  }

  for (int64_t first = 0; first < a.time_steps; first += kAhead) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t t = first + k;
      if (t >= a.time_steps) break;
      const Pack<In, kCount> now = ahead[k];
      const Pack<In, kCount> residual_now = residual_ahead[k];
      if (t + kAhead < a.time_steps) {
        ahead[k].load(drive + (t + kAhead) * a.drive_step, whole, count);
        if (added) {
          residual_ahead[k].load(residual + (t + kAhead) * a.residual_step, whole, count);
        }
      }
      Pack<std::conditional_t<kSends, Out, In>, kCount> spikes;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        float c = widen(now.values[i]);
        if (biased) c = c + bias[i];
        if (added) c = c + widen(residual_now.values[i]);
        const Step done = step<kGraded>(c, own[i], v.values[i], m.values[i], a.rule);
        if constexpr (kSends) spikes.values[i] = sent<Out>(done);
      }
      if constexpr (kSends) {
        spikes.store(static_cast<Out*>(a.spikes) + t * a.spikes_step + n, whole, count);
      }
    }
  }
  v.store(a.v_out + n, whole, count);
  m.store(a.m_out + n, whole, count);
}

// Whether every time slice starts on a 16-byte boundary, as far as it is touched.
template <class T>
bool starts_aligned(const void* pointer, int64_t step) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && step * sizeof(T) % 16 == 0;
}

template <class In, class Out, bool kGraded>
void launch_kernel(const Arguments& a, cudaStream_t stream) {
  bool aligned = starts_aligned<In>(a.drive, a.drive_step) &&
                 starts_aligned<In>(a.residual, a.residual_step) &&
                 starts_aligned<float>(a.v_in, 0) && starts_aligned<int32_t>(a.m_in, 0) &&
                 starts_aligned<float>(a.v_out, 0) && starts_aligned<int32_t>(a.m_out, 0);
  if constexpr (!std::is_same_v<Out, Nothing>) {
    aligned = aligned && starts_aligned<Out>(a.spikes, a.spikes_step);
  }
  constexpr int64_t kPerBlock = kThreads * kNeurons<In, kGraded>;
  const auto blocks = static_cast<unsigned>((a.neurons + kPerBlock - 1) / kPerBlock);
  snm_kernel<In, Out, kGraded><<<blocks, kThreads, 0, stream>>>(a, aligned);
}

template <class In, class Out>
void launch_rule(const Arguments& a, cudaStream_t stream) {
  if (a.rule.max_spikes > 1) {
    launch_kernel<In, Out, true>(a, stream);
  } else {
    launch_kernel<In, Out, false>(a, stream);
  }
}

template <class In>
void launch_spikes(const Arguments& a, cudaStream_t stream) {
  switch (a.spikes_type) {
    case DType::kFloat32: return launch_rule<In, float>(a, stream);
    case DType::kFloat16: return launch_rule<In, __half>(a, stream);
    case DType::kBFloat16: return launch_rule<In, __nv_bfloat16>(a, stream);
    case DType::kInt8: return launch_rule<In, int8_t>(a, stream);
    default: return launch_rule<In, Nothing>(a, stream);
  }
}

}  // namespace snm
