// Max pooling by a running maximum: the only place in C++ that knows its rule and its windows.
// snm_kernels/reference_running_max.py and snm_kernels/triton/running_max_kernel.py say the same.
#pragma once

#include "arguments.h"

namespace snm {

// What an input has sent in n spikes; a silent neuron carries 0.
SNM_INLINE float carried(int32_t n, float theta) {
  return theta == std::numeric_limits<float>::infinity() ? 0.0f : static_cast<float>(n) * theta;
}

// One tap of a window's maximum; the first of equals stays, and NaN stays.
SNM_INLINE int32_t larger(int32_t c, int32_t most) { return c > most ? c : most; }
SNM_INLINE float larger(float c, float most) {
  const float ordered = c > most ? c : most;
  return c != c ? c : ordered;
}

// Where a maximum starts: no value is less.
template <class Value>
SNM_INLINE Value least();
template <>
SNM_INLINE int32_t least<int32_t>() {
  return std::numeric_limits<int32_t>::min();
}
template <>
SNM_INLINE float least<float>() {
  return -std::numeric_limits<float>::infinity();
}

// The windows along one spatial dimension.
struct Windows {
  int64_t in;
  int64_t out;
  int64_t kernel;  // the taps of a window; where adaptive, no window has more
  int64_t stride;
  int64_t padding;
  int64_t dilation;
  bool adaptive;  // window o covers [floor(o * in / out), ceil((o + 1) * in / out))
};

// The taps of a window that lie inside the input: first, first + step, ...
template <class Index>
struct TapRange {
  Index first;
  Index count;
  Index step;
};
using Taps = TapRange<int64_t>;

// An Index of 32 bits asks for windows that fit it: fits_int32.
template <class Index>
SNM_INLINE TapRange<Index> taps_of(const Windows& w, Index o) {
  const auto in = static_cast<Index>(w.in);
  if (w.adaptive) {
    const auto out = static_cast<Index>(w.out);
    const Index first = o * in / out;
    return {first, ((o + 1) * in + out - 1) / out - first, 1};
  }
  const auto dilation = static_cast<Index>(w.dilation);
  const Index start = o * static_cast<Index>(w.stride) - static_cast<Index>(w.padding);
  const Index before = start < 0 ? (dilation - 1 - start) / dilation : 0;
  const Index first = start + before * dilation;
  const Index inside = first < in ? (in - 1 - first) / dilation + 1 : 0;
  const Index left = static_cast<Index>(w.kernel) - before;
  const Index count = inside < left ? inside : left;
  return {first, count < 0 ? 0 : count, dilation};
}

SNM_INLINE bool fits_int32(const Windows& w) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  return w.in < most / (w.out + 1) && w.dilation + w.padding + w.kernel < most;
}

// Thresholds read in place: a step of 0 repeats them over the dimension.
struct ThresholdGrid {
  const float* values;
  int64_t channel_step;
  int64_t step[3];
};

// One run of the op. Tensors are [batch, channels, depth, height, width] slices, dense and
// contiguous or channels_last; a dimension that the caller's lacks has size 1.
struct RunningMaxArguments {
  int64_t time_steps;
  int64_t batch;
  int64_t channels;
  Windows windows[3];
  bool channels_last;
  DType input_type;  // kInt8: spikes that carry a threshold; floating: amplitudes
  const void* input;
  int64_t input_step;
  ThresholdGrid threshold;  // values null for none
  bool shared;              // one threshold for a whole window: spikes are counted
  const void* total_in;     // int32 counts or float32 sums; null for 0
  void* total_out;
  DType sent_type;
  void* sent;
  int64_t sent_step;
};

SNM_INLINE int64_t inputs_of(const RunningMaxArguments& a) {
  return a.windows[0].in * a.windows[1].in * a.windows[2].in;
}
SNM_INLINE int64_t outputs_of(const RunningMaxArguments& a) {
  return a.windows[0].out * a.windows[1].out * a.windows[2].out;
}

}  // namespace snm
