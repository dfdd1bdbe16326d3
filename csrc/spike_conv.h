// One run of a convolution of spikes with the neurons that it drives, as kernels take it. Knows no
// framework.
#pragma once

#include <cstdint>
#include <type_traits>

#include "rule.h"

namespace snm {

// Sizes along one dimension. Inputs are summed over windows of `pool` first, then convolved.
struct SpikeConvSize {
  int64_t in;      // inputs
  int64_t pool;    // inputs of a window, side by side; what is left at the end is not read
  int64_t pooled;  // windows
  int64_t kernel;
  int64_t stride;
  int64_t padding;
  int64_t dilation;
  int64_t out;
};

// What a run reads of its spikes.
struct SpikeConvInputs {
  int64_t time_steps;
  int64_t batch;
  int64_t groups;
  bool depthwise;  // whether an output reads one channel, its own; densely, that is one group
  int64_t in_channels;  // of all groups
  int64_t out_channels;
  SpikeConvSize height;
  SpikeConvSize width;
  const int8_t* spikes;
};

// Everything is channels_last and dense: [T][B][height][width][channels]. Parameters are
// [1][channels], or [height * width][channels] of the outputs. Number: int32_t, of sums of weights
// of 8 bits, or float.
template <class Number>
struct SpikeConvArguments : SpikeConvInputs {
  using Weight = std::conditional_t<std::is_same_v<Number, float>, float, int8_t>;

  Rule rule;
  const Weight* weight;  // as pack_spike_weight() has it
  int64_t block;         // outputs of a block of the weight
  const Number* bias;    // null for none
  int64_t bias_pixels;
  const Number* residual;  // null for none
  int64_t residual_step;   // 0 where it is constant in time
  Number* drive;           // null where neurons run
  const Number* threshold;
  int64_t threshold_pixels;
  const Number* v_in;  // null for the rule's start
  const int32_t* m_in;
  Number* v_out;
  int32_t* m_out;
  int8_t* sent;  // null for nothing
};

}  // namespace snm
