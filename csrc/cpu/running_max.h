// How the CPU walks a run of the running maximum, known to the kernel and to who calls it.
#pragma once

#include "../running_max_rule.h"

namespace snm {

// A unit is what one thread runs over all time steps: some [batch, channel] planes of a contiguous
// slice, or some channels of one image of a channels_last slice.
constexpr int64_t kPlaneElements = 2048;
constexpr int64_t kChannelBlock = 64;

struct RunningMaxPlan {
  int64_t planes;  // of a unit, where contiguous; the last unit may have less
  int64_t inner;   // channels of a unit, where channels_last; the last of an image may have less
  int64_t blocks;  // units of an image, where channels_last
  int64_t units;
  bool flat;       // rows tile exactly: one long row will do
  int64_t rows;    // of the input, in a unit
  int64_t sent_rows;
};

SNM_INLINE RunningMaxPlan plan_of(const RunningMaxArguments& a) {
  RunningMaxPlan plan{};
  const Windows& width = a.windows[2];
  if (a.channels_last) {
    plan.planes = 1;
    plan.inner = a.channels < kChannelBlock ? a.channels : kChannelBlock;
    plan.blocks = (a.channels + plan.inner - 1) / plan.inner;
    plan.units = a.batch * plan.blocks;
  } else {
    const int64_t all = a.batch * a.channels;
    const int64_t fit = kPlaneElements / inputs_of(a);
    plan.planes = fit < 1 ? 1 : (fit < all ? fit : all);
    plan.inner = 1;
    plan.blocks = 1;
    plan.units = (all + plan.planes - 1) / plan.planes;
  }
  plan.rows = plan.planes * a.windows[0].in * a.windows[1].in;
  plan.sent_rows = plan.planes * a.windows[0].out * a.windows[1].out;
  plan.flat = !a.channels_last && !width.adaptive && width.padding == 0 && width.dilation == 1 &&
              width.stride == width.kernel && width.in == width.out * width.kernel;
  return plan;
}

// What a unit keeps between its rows and its time steps: 4-byte values in one piece of memory.
struct RunningMaxBuffers {
  Taps* taps[3];
  float* theta;       // of each input where thresholds differ within windows
  float* sent_theta;  // of each output of a row in each plane, where they are shared
  char* values;       // of the inputs, where contiguous, else of a row's
  char* row_maxima;   // of every input row
  char* maxima;       // of every window, at the step before
  char* folded;       // of a row of windows
  char* changes;      // of windows, before they are converted to what is sent
  int64_t bytes;
};

SNM_INLINE RunningMaxBuffers buffers_of(const RunningMaxArguments& a, const RunningMaxPlan& plan,
                                        char* memory) {
  RunningMaxBuffers buffers{};
  const auto take = [&](int64_t bytes) {
    char* const start = memory + buffers.bytes;
    buffers.bytes += (bytes + 63) / 64 * 64;
    return start;
  };
  const int64_t inputs = plan.planes * inputs_of(a) * plan.inner;
  const int64_t sent_row = a.windows[2].out * plan.inner;
  for (int d = 0; d < 3; ++d) {
    buffers.taps[d] = reinterpret_cast<Taps*>(take(a.windows[d].out * sizeof(Taps)));
  }
  const bool carries = a.threshold.values != nullptr;
  buffers.theta = reinterpret_cast<float*>(take(carries && !a.shared ? inputs * 4 : 0));
  buffers.sent_theta =
      reinterpret_cast<float*>(take(carries && a.shared ? plan.planes * sent_row * 4 : 0));
  buffers.values = take((a.channels_last ? a.windows[2].in * plan.inner : inputs) * 4);
  buffers.row_maxima = take(plan.rows * sent_row * 4);
  buffers.maxima = take(plan.sent_rows * sent_row * 4);
  buffers.folded = take(sent_row * 4);
  buffers.changes = take((a.channels_last ? 1 : plan.sent_rows) * sent_row * 4);
  return buffers;
}

}  // namespace snm
