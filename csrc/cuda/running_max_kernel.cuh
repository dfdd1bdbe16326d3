// The running maximum's kernels: a thread runs one window over time, its inputs' totals in
// registers or, where the window has many, in scratch memory.
#pragma once

#include <type_traits>

#include "convert.cuh"
#include "launch.cuh"
#include "running_max.h"

namespace snm {

constexpr int kPoolThreads = 256;
// Steps whose inputs are on their way while one is being computed.
constexpr int kAhead = 4;

// What the windows compare, given an input's total.
__device__ __forceinline__ void value_of(int32_t total, float, int32_t& value) { value = total; }
__device__ __forceinline__ void value_of(int32_t total, float theta, float& value) {
  value = carried(total, theta);
}
__device__ __forceinline__ void value_of(float total, float, float& value) { value = total; }

// An input between its load and its use; bytes would be packed into registers and taken out again.
template <class In>
using Loaded = std::conditional_t<std::is_same_v<In, int8_t>, int32_t, In>;

__device__ __forceinline__ int32_t added(int32_t total, int32_t x) { return total + x; }
template <class In>
__device__ __forceinline__ float added(float total, In x) {
  return total + widen(x);
}

// Adjacent elements, stored at once.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Elements {
  T values[kCount];
};

template <class T, int kCount, class Element>
__device__ __forceinline__ void store(void* to, int64_t place, Element element) {
  Elements<T, kCount> elements;
#pragma unroll
  for (int i = 0; i < kCount; ++i) elements.values[i] = element(i);
  *reinterpret_cast<Elements<T, kCount>*>(static_cast<T*>(to) + place) = elements;
}

// Sends by how much the maxima of adjacent windows changed; theta are those of counted spikes.
template <class Value, int kCount>
__device__ __forceinline__ void send(const RunningMaxArguments& a, int64_t place,
                                     const Value (&change)[kCount], const float (&theta)[kCount]) {
  if constexpr (std::is_same_v<Value, int32_t>) {
    if (a.sent_type == DType::kInt8) {
      store<int8_t, kCount>(a.sent, place, [&](int i) { return static_cast<int8_t>(change[i]); });
      return;
    }
  }
  const auto amplitude = [&](int i) {
    if constexpr (std::is_same_v<Value, int32_t>) return carried(change[i], theta[i]);
    else return change[i];
  };
  switch (a.sent_type) {
    case DType::kFloat16:
      store<__half, kCount>(a.sent, place, [&](int i) { return __float2half_rn(amplitude(i)); });
      break;
    case DType::kBFloat16:
      store<__nv_bfloat16, kCount>(a.sent, place,
                                   [&](int i) { return __float2bfloat16_rn(amplitude(i)); });
      break;
    default:
      store<float, kCount>(a.sent, place, amplitude);
  }
}

// Calls advance(k, more) for every step: k counts them modulo kAhead, `more` says whether there is
// one kAhead later. Left at any step: were it only after kAhead of them, the compiler would read
// inputs too early.
template <class Advance>
__device__ __forceinline__ void over_time(int64_t time_steps, Advance advance) {
  for (int64_t left = time_steps;; left -= kAhead) {
    const int steps = left < 2 * kAhead ? static_cast<int>(left) : 2 * kAhead;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (k >= steps) return;
      advance(k, k + kAhead < steps);
    }
  }
}

// A window's place: adjacent threads take outputs that are adjacent in memory.
template <class Index>
struct Window {
  TapRange<Index> taps[3];
  Index base;      // element of its plane's first input
  Index position;  // elements from one input of the plane to the next
  const float* theta;

  __device__ Window(const RunningMaxArguments& a, Index n) {
    const auto channels = static_cast<Index>(a.channels);
    const auto inputs = static_cast<Index>(inputs_of(a));
    Index channel = 0;
    if (a.channels_last) {
      channel = n % channels;
      n /= channels;
    }
#pragma unroll
    for (int d = 2; d >= 0; --d) {
      const auto out = static_cast<Index>(a.windows[d].out);
      const Index before = n / out;
      taps[d] = taps_of<Index>(a.windows[d], n - before * out);
      n = before;
    }
    if (a.channels_last) {
      position = channels;
      base = n * inputs * channels + channel;
    } else {
      position = 1;
      base = n * inputs;
      channel = n % channels;
    }
    theta = a.threshold.values + channel * a.threshold.channel_step;
  }

  // Element of an input in a time slice, by the numbers of its tap.
  __device__ __forceinline__ Index element(const RunningMaxArguments& a, Index i, Index j,
                                           Index k) const {
    const auto height = static_cast<Index>(a.windows[1].in);
    const auto width = static_cast<Index>(a.windows[2].in);
    const Index d = taps[0].first + i * taps[0].step;
    const Index h = taps[1].first + j * taps[1].step;
    const Index w = taps[2].first + k * taps[2].step;
    return base + ((d * height + h) * width + w) * position;
  }

  __device__ __forceinline__ float threshold(const RunningMaxArguments& a, Index i, Index j,
                                             Index k) const {
    const ThresholdGrid& grid = a.threshold;
    return theta[(taps[0].first + i * taps[0].step) * grid.step[0] +
                 (taps[1].first + j * taps[1].step) * grid.step[1] +
                 (taps[2].first + k * taps[2].step) * grid.step[2]];
  }
};

// Totals in registers. A tap outside the input is the first one once more, which changes no
// maximum. kCarries: thresholds differ within windows.
template <class In, class Total, class Value, bool kCarries, int kTaps>
__global__ void __launch_bounds__(kPoolThreads, 2)
    running_max_kernel(const RunningMaxArguments a, const uint32_t windows,
                       const bool writes_totals) {
  const uint32_t thread = blockIdx.x * kPoolThreads + threadIdx.x;
  if (thread >= windows) return;
  const auto n = static_cast<int32_t>(thread);
  const Window<int32_t> window(a, n);
  const int high = static_cast<int>(a.windows[1].kernel);
  const int wide = static_cast<int>(a.windows[2].kernel);
  const int32_t first = window.element(a, 0, 0, 0);
  const Total* total_in = static_cast<const Total*>(a.total_in);
  const In* input = static_cast<const In*>(a.input);

  uint32_t place[kTaps];
  Total total[kTaps];
  float theta[kCarries ? kTaps : 1];
  Value last = least<Value>();
  int i = 0, j = 0, k = 0;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    const bool inside = i < window.taps[0].count && j < window.taps[1].count &&
                        k < window.taps[2].count;
    const int32_t element = inside ? window.element(a, i, j, k) : first;
    place[tap] = static_cast<uint32_t>(element);
    total[tap] = total_in == nullptr ? Total{} : total_in[element];
    if constexpr (kCarries) {
      theta[tap] = inside ? window.threshold(a, i, j, k) : window.threshold(a, 0, 0, 0);
    }
    Value value;
    value_of(total[tap], theta[kCarries ? tap : 0], value);
    last = tap == 0 ? value : larger(value, last);
    if (++k == wide) {
      k = 0;
      if (++j == high) {
        j = 0;
        ++i;
      }
    }
  }
  if constexpr (std::is_same_v<Value, int32_t>) theta[0] = *window.theta;

  Loaded<In> ahead[kAhead][kTaps];
  const auto ask_for_next = [&](int k) {
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) ahead[k][tap] = input[place[tap]];
    input += a.input_step;
  };
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k < a.time_steps) ask_for_next(k);
  }
  int64_t to = n;
  const auto advance = [&](int k, bool more) {
    Value most = least<Value>();
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      total[tap] = added(total[tap], ahead[k][tap]);
      Value value;
      value_of(total[tap], theta[kCarries ? tap : 0], value);
      most = tap == 0 ? value : larger(value, most);
    }
    if (more) ask_for_next(k);
    send<Value, 1>(a, to, {most - last}, {theta[0]});
    to += a.sent_step;
    last = most;
  };
  over_time(a.time_steps, advance);
  if (writes_totals) {
    // Windows that share an input write the same to it.
    Total* total_out = static_cast<Total*>(a.total_out);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) total_out[place[tap]] = total[tap];
  }
}

// Totals in scratch memory, [tap][window]: a window of any size.
template <class In, class Total, class Value, bool kCarries>
__global__ void __launch_bounds__(kPoolThreads, 2)
    running_max_large_kernel(const RunningMaxArguments a, const int64_t windows, Total* scratch,
                             const bool writes_totals) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x;
  if (n >= windows) return;
  const Window<int64_t> window(a, n);
  const Total* total_in = static_cast<const Total*>(a.total_in);
  Total* total_out = static_cast<Total*>(a.total_out);
  const float shared = std::is_same_v<Value, int32_t> ? *window.theta : 0.0f;
  Value last = least<Value>();
  // Step -1 stands for what was sent before.
  for (int64_t t = -1; t < a.time_steps; ++t) {
    const In* input = static_cast<const In*>(a.input) + t * a.input_step;
    const bool ends = writes_totals && t + 1 == a.time_steps;
    Value most = least<Value>();
    Total* kept = scratch + n;
    for (int64_t i = 0; i < window.taps[0].count; ++i) {
      for (int64_t j = 0; j < window.taps[1].count; ++j) {
#pragma unroll 1
        for (int64_t k = 0; k < window.taps[2].count; ++k, kept += windows) {
          const int64_t element = window.element(a, i, j, k);
          Total total;
          if (t < 0) {
            total = total_in == nullptr ? Total{} : total_in[element];
          } else {
            total = added(*kept, input[element]);
          }
          *kept = total;
          if (ends) total_out[element] = total;
          Value value;
          value_of(total, kCarries ? window.threshold(a, i, j, k) : 0.0f, value);
          most = larger(value, most);
        }
      }
    }
    if (t >= 0) send<Value, 1>(a, t * a.sent_step + n, {most - last}, {shared});
    last = most;
  }
}

// The totals alone, for inputs that lie in no window.
template <class In, class Total>
__global__ void __launch_bounds__(kPoolThreads)
    running_total_kernel(const RunningMaxArguments a, const int64_t inputs) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x;
  if (n >= inputs) return;
  const In* input = static_cast<const In*>(a.input) + n;
  Total total = a.total_in == nullptr ? Total{} : static_cast<const Total*>(a.total_in)[n];
#pragma unroll 4
  for (int64_t t = 0; t < a.time_steps; ++t) total = added(total, input[t * a.input_step]);
  static_cast<Total*>(a.total_out)[n] = total;
}

// Whether every input lies in a window.
inline bool covers(const Windows& w) {
  const bool gapless = w.dilation == 1 && w.stride <= w.kernel;
  return w.adaptive || (gapless && (w.out - 1) * w.stride + w.kernel - w.padding >= w.in);
}

inline unsigned pool_blocks(int64_t threads) {
  return static_cast<unsigned>((threads + kPoolThreads - 1) / kPoolThreads);
}

// Runs the totals of inputs that lie in no window; whether there are none.
template <class In, class Total>
bool launch_uncovered(const RunningMaxArguments& a, cudaStream_t stream) {
  if (covers(a.windows[0]) && covers(a.windows[1]) && covers(a.windows[2])) return true;
  const int64_t inputs = a.batch * a.channels * inputs_of(a);
  launch(running_total_kernel<In, Total>, pool_blocks(inputs), kPoolThreads, 0, stream, a, inputs);
  return false;
}

template <class In, class Total, class Value, bool kCarries>
void launch_pool(const RunningMaxArguments& a, void* scratch, cudaStream_t stream) {
  const int64_t windows = a.batch * a.channels * outputs_of(a);
  const bool covered = launch_uncovered<In, Total>(a, stream);
  const unsigned blocks = pool_blocks(windows);
  if (scratch != nullptr) {
    launch(running_max_large_kernel<In, Total, Value, kCarries>, blocks, kPoolThreads, 0, stream, a,
           windows, static_cast<Total*>(scratch), covered);
  } else if (taps_of_window(a) <= 4) {
    launch(running_max_kernel<In, Total, Value, kCarries, 4>, blocks, kPoolThreads, 0, stream, a,
           static_cast<uint32_t>(windows), covered);
  } else {
    launch(running_max_kernel<In, Total, Value, kCarries, 9>, blocks, kPoolThreads, 0, stream, a,
           static_cast<uint32_t>(windows), covered);
  }
}

}  // namespace snm
