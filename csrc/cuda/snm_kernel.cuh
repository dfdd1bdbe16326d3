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

// How neurons are dealt out to threads. kNeurons: adjacent ones of a thread; kRows: so many rows of
// the drive are in shared memory or on their way there, in kGroups groups, each waited for at once;
// kBlocks: a multiprocessor has registers for so many at least. docs/gpu.md has the arithmetic.
template <class In, bool kGraded>
struct Wide {
  static constexpr int kThreads = 128;
  static constexpr int kBlocks = kGraded || sizeof(In) == 2 ? 4 : 6;
  // 16 bytes of drive; half of that where the division of a graded rule needs the registers.
  static constexpr int kNeurons = (kGraded ? 8 : 16) / sizeof(In);
  static constexpr int kRows = 8;
  static constexpr int kGroups = 4;
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
  static constexpr int kGroups = 8;
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

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kCopiesAsynchronously = false;
#else
constexpr bool kCopiesAsynchronously = true;
#endif

// The rows of one thread in its block's shared memory, which no other thread touches. The residual
// has a ring of its own behind the drive's.
template <class T, class Shape>
struct Ring {
  using Row = Pack<T, Shape::kNeurons>;
  static constexpr unsigned kRowBytes = sizeof(Row) * Shape::kThreads;
  static constexpr unsigned kBytes = kRowBytes * Shape::kRows;
  static constexpr int kGroupRows = Shape::kRows / Shape::kGroups;
  static constexpr unsigned kGroupBytes = kGroupRows * kRowBytes;
  // Such a copy moves 4 bytes at least.
  static constexpr bool kAsynchronous = kCopiesAsynchronously && sizeof(Row) >= 4;

  const T* from;  // where the next row comes from
  int64_t step;
  unsigned first;  // byte of the ring

  __device__ __forceinline__ Row& at(unsigned place) const {
    extern __shared__ __align__(16) unsigned char ring[];
    return reinterpret_cast<Row*>(ring + first + place)[threadIdx.x];
  }

  __device__ __forceinline__ void ask(unsigned place) {
    __pipeline_memcpy_async(&at(place), from, sizeof(Row));
    from += step;
  }

  // Half of the ring through registers, all rows under way before the first is waited for.
  static constexpr int kHalf = Shape::kRows / 2;
  __device__ __forceinline__ void fetch(unsigned place, int rows) {
    Row fetched[kHalf];
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      if (k < rows) fetched[k].load(from + k * step);
    }
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      if (k < rows) at(place + k * kRowBytes) = fetched[k];
    }
    from += kHalf * step;
  }
};

__device__ __forceinline__ int32_t widen(Integer value) { return static_cast<int32_t>(value); }

// The values of kCount adjacent neurons from n on.
template <class Number, int kCount>
__device__ __forceinline__ void gather(const Periodic& parameter, int64_t n,
                                       Number (&values)[kCount]) {
  const auto* from = static_cast<const Number*>(parameter.values);
  const int64_t index = n / parameter.inner;
  int64_t inside = n - index * parameter.inner;
  int64_t position = index % parameter.period;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = from[position];
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

// What a neuron compares with: by u <= lower, integers by u < lower.
template <class V>
__device__ __forceinline__ Thresholds<V> own_thresholds(typename V::Number theta, const Rule& rule) {
  if constexpr (V::kIntegers) {
    return integer_thresholds(theta, rule);
  } else {
    Thresholds<V> own = thresholds<V>(theta, rule);
    if (rule.strict) own.lower = just_below(own.lower);
    return own;
  }
}

template <class V>
__device__ __forceinline__ typename V::Number start_of(typename V::Number theta, const Rule& rule) {
  if constexpr (V::kIntegers) return integer_starting_membrane(theta, rule);
  else return starting_membrane<V>(theta, rule);
}

template <class In, class Out, bool kGraded, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) snm_kernel(const Arguments a) {
  constexpr int kCount = Shape::kNeurons;
  constexpr bool kSends = !std::is_same_v<Out, Nothing>;
  using Rows = Ring<In, Shape>;
  using Kept = MemoryOf<In, kGraded>;
  using Lanes = typename Kept::Lanes;
  using Number = typename Lanes::Number;
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * Shape::kThreads + threadIdx.x) * kCount;
  if (n >= a.neurons) return;

  const bool added = a.residual != nullptr;
  const int time_steps = static_cast<int>(a.time_steps);
  Rows drive{static_cast<const In*>(a.drive) + n, a.drive_step, 0};
  Rows residual{static_cast<const In*>(a.residual) + n, a.residual_step, Rows::kBytes};
  // Asks for a group's rows, as far as there are steps from t on.
  const auto ask = [&](unsigned place, int t) {
    const auto rows = [&](auto all) {
#pragma unroll
      for (int k = 0; k < Rows::kGroupRows; ++k) {
        if (!all && t + k >= time_steps) break;
        drive.ask(place + k * Rows::kRowBytes);
        if (added) residual.ask(place + k * Rows::kRowBytes);
      }
    };
    if (t + Rows::kGroupRows <= time_steps) rows(std::true_type{});
    else rows(std::false_type{});
    __pipeline_commit();
  };
  const auto fetch = [&](unsigned place, int rows) {
    drive.fetch(place, rows);
    if (added) residual.fetch(place, rows);
  };
  if constexpr (Rows::kAsynchronous) {
#pragma unroll 1
    for (int group = 0; group < Shape::kGroups; ++group) {
      ask(group * Rows::kGroupBytes, group * Rows::kGroupRows);
    }
  } else {
    fetch(0, time_steps);
    fetch(Rows::kBytes / 2, time_steps - Rows::kHalf);
  }

  Number theta[kCount], bias[kCount];
  Thresholds<Lanes> own[kCount];
  Pack<Number, kCount> v;
  Pack<int32_t, kCount> start, negative;
  typename Lanes::Int m[kCount];
  typename Kept::Limits limits[kCount];
  gather(a.threshold, n, theta);
  if (a.bias.values != nullptr) gather(a.bias, n, bias);
  if (a.v_in != nullptr) v.load(static_cast<const Number*>(a.v_in) + n);
  if (a.m_in != nullptr) start.load(a.m_in + n);
  if (Shape::kCounts && a.negative_in != nullptr) negative.load(a.negative_in + n);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    own[i] = own_thresholds<Lanes>(theta[i], a.rule);
    // The one float that added to any leaves it as it is.
    if (a.bias.values == nullptr) bias[i] = Lanes::kIntegers ? Number{} : Number(-0.0f);
    if (a.v_in == nullptr) v.values[i] = start_of<Lanes>(own[i].theta, a.rule);
    if (a.m_in == nullptr) start.values[i] = 0;
    if (Shape::kCounts && a.negative_in == nullptr) negative.values[i] = 0;
    m[i] = Kept::inside(start.values[i]);
    limits[i] = Kept::limits(a.rule, start.values[i]);
  }

  auto* to = static_cast<std::conditional_t<kSends, Out, In>*>(a.spikes) + n;
  unsigned place = 0;
  const auto advance = [&](unsigned place) {
    Number c[kCount];
    // All of it, before the place is asked into.
    const auto row = drive.at(place);
    row.widen_to(c);
#pragma unroll
    for (int i = 0; i < kCount; ++i) c[i] = Lanes::add(c[i], bias[i]);
    if (added) {
      Number more[kCount];
      const auto other = residual.at(place);
      other.widen_to(more);
#pragma unroll
      for (int i = 0; i < kCount; ++i) c[i] = Lanes::add(c[i], more[i]);
    }
    Pack<std::conditional_t<kSends, Out, In>, kCount> spikes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Step<Lanes> done = step<kGraded, Lanes>(c[i], own[i], v.values[i], m[i], limits[i]);
      if constexpr (Shape::kCounts) negative.values[i] += done.corrects;
      if constexpr (kSends) spikes.values[i] = sent<Out>(done);
    }
    if constexpr (kSends) {
      spikes.store(to);
      to += a.spikes_step;
    }
  };
  const auto advance_group = [&](int steps) {
#pragma unroll
    for (int k = 0; k < Rows::kGroupRows; ++k) {
      if (k >= steps) break;
      advance(place + k * Rows::kRowBytes);
    }
  };
#pragma unroll 1
  for (int t = 0; t < time_steps; t += Rows::kGroupRows) {
    // The oldest group is there; the others are on their way.
    __pipeline_wait_prior(Shape::kGroups - 1);
    // Twice, as a whole group need not ask at every step whether there is another.
    if (t + Rows::kGroupRows <= time_steps) advance_group(Rows::kGroupRows);
    else advance_group(time_steps - t);
    const int next = t + Shape::kRows;
    if constexpr (Rows::kAsynchronous) {
      ask(place, next);
    } else if ((place + Rows::kGroupBytes) % (Rows::kBytes / 2) == 0) {
      // This half has been read; the other one holds the next rows.
      const int read = Rows::kHalf - Rows::kGroupRows;
      fetch(place - read * Rows::kRowBytes, time_steps - next + read);
    }
    place = (place + Rows::kGroupBytes) % Rows::kBytes;
  }
  v.store(static_cast<Number*>(a.v_out) + n);
  // Once more, not kept so long; what has been sent shares no memory with it.
  if (Kept::kFromStart && a.m_in != nullptr) start.load(a.m_in + n);
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
  const size_t bytes = Ring<In, Shape>::kBytes * (a.residual == nullptr ? 1 : 2);
  int64_t left = a.time_steps;
  while (true) {
    a.time_steps = std::min(left, kMostSteps);
    launch(snm_kernel<In, Out, kGraded, Shape>, blocks, Shape::kThreads, bytes, stream, a);
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
  // Fewer wide blocks would have less on their way than narrow ones.
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
