// The neuron's kernel: a thread keeps a few adjacent neurons in registers and runs over time.
#pragma once

#include <cuda_pipeline.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "launch.cuh"
#include "pack.cuh"
#include "snm.h"
#include "ternary.cuh"

namespace snm {

struct Nothing {};

// How neurons are dealt out to threads. kNeurons: adjacent ones of a thread; kRows: so many rows,
// of the drive and between them of the residual, are in shared memory or on their way there;
// kBlocks: a multiprocessor has registers for so many at least. docs/gpu.md has the arithmetic.
template <class In, bool kGraded>
struct Wide {
  static constexpr int kThreads = 128;
  static constexpr int kBlocks = kGraded || sizeof(In) == 2 ? 4 : 8;
  // 16 bytes of drive; half of that where the division of a graded rule needs the registers.
  static constexpr int kNeurons = (kGraded ? 8 : 16) / sizeof(In);
  static constexpr int kRows = 8;
  static constexpr bool kCounts = false;
};

// For layers too small to fill the device, so that all multiprocessors get some; for those that do
// not lie on words of 16 bytes; and where negative spikes are counted, which takes registers.
template <class In>
struct Narrow {
  static constexpr int kThreads = 32;
  static constexpr int kBlocks = 16;
  static constexpr int kNeurons = 4 / sizeof(In);
  static constexpr int kRows = 32;
  static constexpr bool kCounts = true;
};

// For half precision that does not even lie on words of 4 bytes.
struct Single : Narrow<float> {};

__device__ __forceinline__ int8_t low_byte(int32_t s) { return static_cast<int8_t>(s); }
// Added to 1.5 * 2^23, a small number's bits are the lowest ones.
__device__ __forceinline__ int8_t low_byte(float s) {
  return static_cast<int8_t>(__float_as_uint(s + 12582912.0f));
}

template <class Out, class Lanes>
__device__ __forceinline__ Out sent(const Step<Lanes>& step) {
  if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, __nv_bfloat16>) return __float2bfloat16_rn(step.amplitude);
  else if constexpr (std::is_same_v<Out, int8_t>) return low_byte(step.s);
  else return step.amplitude;
}

// The rows of one thread in its block's shared memory; no other thread touches them.
template <class T, class Shape>
struct Ring {
  using Row = Pack<T, Shape::kNeurons>;
  static constexpr unsigned kRowBytes = sizeof(Row) * Shape::kThreads;
  static constexpr unsigned kBytes = kRowBytes * Shape::kRows;
  // An asynchronous copy moves 4 bytes at least.
  static constexpr bool kAsynchronous = sizeof(Row) >= 4;
  static constexpr int kHalf = Shape::kRows / 2;

  __device__ __forceinline__ static Row& at(unsigned place) {
    extern __shared__ __align__(16) unsigned char ring[];
    return reinterpret_cast<Row*>(ring + place)[threadIdx.x];
  }

  __device__ __forceinline__ static void ask(unsigned place, const T* from) {
    __pipeline_memcpy_async(&at(place), from, sizeof(Row));
  }

  // Up to kHalf rows through registers, all of them under way before the first is waited for.
  __device__ __forceinline__ static void fetch(unsigned place, unsigned apart, const T* from,
                                               int64_t step, int rows) {
    Row fetched[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      if (k < rows) fetched[k].load(from + k * step);
    }
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      if (k < rows) at(place + k * apart) = fetched[k];
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

template <class In, class Out, bool kGraded, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) snm_kernel(const Arguments a) {
  constexpr int kCount = Shape::kNeurons;
  constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  using Rows = Ring<In, Shape>;
  using Kept = Memory<kGraded>;
  using Lanes = typename Kept::Lanes;
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * Shape::kThreads + threadIdx.x) * kCount;
  if (n >= a.neurons) return;

  const In* drive = static_cast<const In*>(a.drive) + n;
  const In* residual = static_cast<const In*>(a.residual) + n;
  const bool added = a.residual != nullptr;
  const unsigned step_bytes = added ? 2 * Rows::kRowBytes : Rows::kRowBytes;
  const int time_steps = static_cast<int>(a.time_steps);
  int asked = 0;
  // Asks for the next row into a place that has been read. A group of copies is one row, an empty
  // one where there are no more. What cannot be copied so is fetched where half of the ring has
  // been read.
  const auto ask = [&](unsigned place) {
    if constexpr (Rows::kAsynchronous) {
      const bool wanted = asked++ < time_steps;
      if (wanted) {
        Rows::ask(place, drive);
        drive += a.drive_step;
      }
      __pipeline_commit();
      if (added) {
        if (wanted) {
          Rows::ask(place + Rows::kRowBytes, residual);
          residual += a.residual_step;
        }
        __pipeline_commit();
      }
    } else if ((place + step_bytes) % (Rows::kBytes / 2) == 0) {
      const int half = added ? Rows::kHalf / 2 : Rows::kHalf;
      const int rows = std::min(half, time_steps - asked);
      const unsigned first = place - (half - 1) * step_bytes;
      Rows::fetch(first, step_bytes, drive, a.drive_step, rows);
      drive += half * a.drive_step;
      if (added) {
        Rows::fetch(first + Rows::kRowBytes, step_bytes, residual, a.residual_step, rows);
        residual += half * a.residual_step;
      }
      asked += half;
    }
  };
#pragma unroll 1
  for (unsigned place = 0; place < Rows::kBytes; place += step_bytes) ask(place);

  float theta[kCount], bias[kCount];
  Thresholds<Lanes> own[kCount];
  Pack<float, kCount> v;
  Pack<int32_t, kCount> start, negative;
  typename Lanes::Int m[kCount];
  typename Kept::Limits limits[kCount];
  gather(a.threshold, n, theta);
  if (a.bias.values != nullptr) gather(a.bias, n, bias);
  if (a.v_in != nullptr) v.load(a.v_in + n);
  if (a.m_in != nullptr) start.load(a.m_in + n);
  if (Shape::kCounts && a.negative_in != nullptr) negative.load(a.negative_in + n);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    own[i] = thresholds<Lanes>(theta[i], a.rule);
    if (a.rule.strict) own[i].lower = just_below(own[i].lower);
    // The one float that added to any leaves it as it is.
    if (a.bias.values == nullptr) bias[i] = -0.0f;
    if (a.v_in == nullptr) v.values[i] = starting_membrane(own[i].theta, a.rule);
    if (a.m_in == nullptr) start.values[i] = 0;
    if (Shape::kCounts && a.negative_in == nullptr) negative.values[i] = 0;
    m[i] = Kept::inside(start.values[i]);
    limits[i] = Kept::limits(a.rule, start.values[i]);
  }

  auto* to = static_cast<std::conditional_t<kSends, Out, In>*>(a.spikes) + n;
  unsigned place = 0;
#pragma unroll 1
  for (int t = 0; t < time_steps; ++t) {
    // For all groups but the youngest, which are rows of later steps.
    __pipeline_wait_prior(Shape::kRows - 2);
    float c[kCount];
    // All at once, before the place is asked into.
    const auto row = Rows::at(place);
    row.widen_to(c);
#pragma unroll
    for (int i = 0; i < kCount; ++i) c[i] = c[i] + bias[i];
    if (added) {
      float more[kCount];
      const auto other = Rows::at(place + Rows::kRowBytes);
      other.widen_to(more);
#pragma unroll
      for (int i = 0; i < kCount; ++i) c[i] = c[i] + more[i];
    }
    ask(place);
    place = (place + step_bytes) % Rows::kBytes;

    Pack<std::conditional_t<kSends, Out, In>, kCount> spikes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Step<Lanes> done =
          step<kGraded, Lanes>(c[i], own[i], v.values[i], m[i], limits[i]);
      if constexpr (Shape::kCounts) negative.values[i] += done.corrects;
      if constexpr (kSends) spikes.values[i] = sent<Out>(done);
    }
    if constexpr (kSends) {
      spikes.store(to);
      to += a.spikes_step;
    }
  }
  v.store(a.v_out + n);
  if (!kGraded && a.m_in != nullptr) start.load(a.m_in + n);
#pragma unroll
  for (int i = 0; i < kCount; ++i) start.values[i] = Kept::outside(start.values[i], m[i]);
  start.store(a.m_out + n);
  if (Shape::kCounts && a.negative_out != nullptr) negative.store(a.negative_out + n);
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

// Whether the neurons fall into packs of so many, and each pack of every time slice starts on a
// word that holds it.
template <class In, class Out, int kCount>
bool fits(const Arguments& a) {
  const auto starts = [&](const void* pointer, int64_t step, int64_t bytes) {
    const int64_t word = std::min<int64_t>(16, bytes * kCount);
    return reinterpret_cast<uintptr_t>(pointer) % word == 0 && step * bytes % word == 0;
  };
  const auto holds = [&](const void* pointer) { return starts(pointer, 0, 4); };
  const bool sends = !std::is_same_v<Out, Nothing>;
  return a.neurons % kCount == 0 && starts(a.drive, a.drive_step, sizeof(In)) &&
         starts(a.residual, a.residual_step, sizeof(In)) &&
         (!sends || starts(a.spikes, a.spikes_step, sizeof(Out))) && holds(a.v_in) &&
         holds(a.m_in) && holds(a.negative_in) && holds(a.v_out) && holds(a.m_out) &&
         holds(a.negative_out);
}

template <class In, class Out, bool kGraded, class Shape>
void launch_shape(Arguments a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(blocks_of<Shape>(a.neurons));
  int64_t left = a.time_steps;
  while (true) {
    a.time_steps = std::min(left, kMostSteps);
    launch(snm_kernel<In, Out, kGraded, Shape>, blocks, Shape::kThreads,
           Ring<In, Shape>::kBytes, stream, a);
    left -= a.time_steps;
    if (left == 0) return;
    a.drive = static_cast<const In*>(a.drive) + kMostSteps * a.drive_step;
    if (a.residual != nullptr) {
      a.residual = static_cast<const In*>(a.residual) + kMostSteps * a.residual_step;
    }
    if constexpr (!std::is_same_v<Out, Nothing>) {
      a.spikes = static_cast<Out*>(a.spikes) + kMostSteps * a.spikes_step;
    }
    a.v_in = a.v_out;
    a.m_in = a.m_out;
    a.negative_in = a.negative_out;
  }
}

template <class In, class Out, bool kGraded>
void launch_kernel(const Arguments& a, cudaStream_t stream) {
  using Many = Wide<In, kGraded>;
  // So many wide blocks have enough on their way for the memory's bandwidth.
  const bool fills = blocks_of<Many>(a.neurons) >= 2 * multiprocessors();
  const bool counts = a.negative_out != nullptr;
  if (fills && !counts && fits<In, Out, Many::kNeurons>(a)) {
    return launch_shape<In, Out, kGraded, Many>(a, stream);
  }
  using Few = Narrow<In>;
  if constexpr (Few::kNeurons > 1) {
    if (!fits<In, Out, Few::kNeurons>(a)) return launch_shape<In, Out, kGraded, Single>(a, stream);
  }
  launch_shape<In, Out, kGraded, Few>(a, stream);
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
