// The running maximum of counted int8 spikes that lie in whole words: a thread loads four adjacent
// inputs at once and runs two or four windows.
#pragma once

#include "running_max_kernel.cuh"

namespace snm {

// What the four inputs of a word are to a thread's windows.
enum class Packing {
  kChannels,  // a tap of four windows
  kPairs,     // of a row, all that two windows have, each two
  kTriples,   // the same with an input before the word: two windows have three each, and share one
};

template <Packing kPacking>
struct Packed {
  static constexpr int kWindows = kPacking == Packing::kChannels ? 4 : 2;
  static constexpr bool kBefore = kPacking == Packing::kTriples;
  static constexpr int kInputs = kBefore ? 5 : 4;

  // The windows' maxima, given those of each input over the rows.
  __device__ __forceinline__ static void maxima(const int32_t (&most)[kInputs],
                                                int32_t (&windows)[kWindows]) {
    if constexpr (kPacking == Packing::kChannels) {
#pragma unroll
      for (int i = 0; i < kWindows; ++i) windows[i] = most[i];
    } else {
      windows[0] = larger(most[0], most[1]);
      windows[1] = larger(most[2], most[3]);
    }
    if constexpr (kBefore) {
      windows[0] = larger(most[4], windows[0]);
      windows[1] = larger(most[1], windows[1]);
    }
  }
};

// Totals in registers. kTaps: words of a thread; one outside the input is the first one once more.
template <Packing kPacking, int kTaps>
__global__ void __launch_bounds__(kPoolThreads, 2)
    running_max_packed_kernel(const RunningMaxArguments a, const uint32_t threads,
                              const bool writes_totals) {
  using Own = Packed<kPacking>;
  constexpr int kWindows = Own::kWindows;
  constexpr int kInputs = Own::kInputs;
  const uint32_t thread = blockIdx.x * kPoolThreads + threadIdx.x;
  if (thread >= threads) return;
  const auto n = static_cast<int32_t>(thread * kWindows);
  const Window<int32_t> window(a, n);
  const int high = static_cast<int>(a.windows[1].kernel);
  // Of a row, contiguous inputs have one word, behind what lies before it.
  const bool spread = kPacking == Packing::kChannels;
  const int wide = spread ? static_cast<int>(a.windows[2].kernel) : 1;
  const int skipped = spread ? 0 : window.taps[2].count - 2;
  const int32_t* total_in = static_cast<const int32_t*>(a.total_in);
  const int8_t* input = static_cast<const int8_t*>(a.input);

  uint32_t place[kTaps], place_before[kTaps];
  int32_t total[kTaps][kInputs], most[kInputs], last[kWindows];
  int i = 0, j = 0, k = 0;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    const bool inside = i < window.taps[0].count && j < window.taps[1].count &&
                        k < window.taps[2].count;
    place_before[tap] = static_cast<uint32_t>(inside ? window.element(a, i, j, k)
                                                     : window.element(a, 0, 0, 0));
    place[tap] = place_before[tap] + static_cast<uint32_t>(skipped);
#pragma unroll
    for (int x = 0; x < kInputs; ++x) {
      const uint32_t element = x < 4 ? place[tap] + x : place_before[tap];
      total[tap][x] = total_in == nullptr ? 0 : total_in[element];
      most[x] = tap == 0 ? total[tap][x] : larger(total[tap][x], most[x]);
    }
    if (++k == wide) {
      k = 0;
      if (++j == high) {
        j = 0;
        ++i;
      }
    }
  }
  Own::maxima(most, last);
  float theta[kWindows];
#pragma unroll
  for (int w = 0; w < kWindows; ++w) {
    theta[w] = window.theta[spread ? w * a.threshold.channel_step : 0];
  }

  int32_t ahead[kAhead][kTaps];
  int32_t ahead_before[kAhead][kTaps];
  const auto ask_for_next = [&](int k) {
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      ahead[k][tap] = *reinterpret_cast<const int32_t*>(input + place[tap]);
      if constexpr (Own::kBefore) ahead_before[k][tap] = input[place_before[tap]];
    }
    input += a.input_step;
  };
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k < a.time_steps) ask_for_next(k);
  }
  int64_t to = n;
  const auto advance = [&](int k, bool more) {
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
      for (int x = 0; x < kInputs; ++x) {
        // The dot product with a one and three zeros adds one byte, sign and all.
        total[tap][x] = x < 4 ? __dp4a(ahead[k][tap], 1 << (8 * x), total[tap][x])
                              : total[tap][x] + ahead_before[k][tap];
        most[x] = tap == 0 ? total[tap][x] : larger(total[tap][x], most[x]);
      }
    }
    if (more) ask_for_next(k);
    int32_t change[kWindows];
    Own::maxima(most, change);
#pragma unroll
    for (int w = 0; w < kWindows; ++w) {
      change[w] -= last[w];
      last[w] += change[w];
    }
    send(a, to, change, theta);
    to += a.sent_step;
  };
  over_time(a.time_steps, advance);
  if (writes_totals) {
    // Windows that share an input write the same to it.
    int32_t* total_out = static_cast<int32_t*>(a.total_out);
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
      for (int x = 0; x < kInputs; ++x) {
        total_out[x < 4 ? place[tap] + x : place_before[tap]] = total[tap][x];
      }
    }
  }
}

template <Packing kPacking, int kTaps>
void launch_packing(const RunningMaxArguments& a, cudaStream_t stream) {
  const bool covered = launch_uncovered<int8_t, int32_t>(a, stream);
  const int64_t windows = a.batch * a.channels * outputs_of(a);
  const int64_t threads = windows / Packed<kPacking>::kWindows;
  launch(running_max_packed_kernel<kPacking, kTaps>, pool_blocks(threads), kPoolThreads, 0,
         stream, a, static_cast<uint32_t>(threads), covered);
}

// Launches the windows whose totals fit registers, if all inputs lie in whole words, as then does
// what is sent; whether it did.
inline bool launch_packed(const RunningMaxArguments& a, cudaStream_t stream) {
  if (reinterpret_cast<uintptr_t>(a.input) % 4 != 0 || a.input_step % 4 != 0) return false;
  if (a.channels_last) {
    if (a.channels % 4 != 0) return false;
    if (taps_of_window(a) <= 4) {
      launch_packing<Packing::kChannels, 4>(a, stream);
    } else {
      launch_packing<Packing::kChannels, 9>(a, stream);
    }
    return true;
  }
  const Windows& w = a.windows[2];
  const int64_t rows = a.windows[0].kernel * a.windows[1].kernel;
  if (w.adaptive || w.stride != 2 || w.dilation != 1 || w.in % 4 != 0 || 2 * w.out != w.in) {
    return false;
  }
  if (w.kernel == 2 && w.padding == 0 && rows <= 2) {
    launch_packing<Packing::kPairs, 2>(a, stream);
    return true;
  }
  if (w.kernel == 3 && w.padding == 1 && rows <= 3) {
    launch_packing<Packing::kTriples, 3>(a, stream);
    return true;
  }
  return false;
}

}  // namespace snm
