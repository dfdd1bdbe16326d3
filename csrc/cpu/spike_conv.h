// How the CPU walks a convolution of spikes, known to the kernel and to who calls it.
#pragma once

#include <algorithm>

#include "../spike_conv.h"

namespace snm {

// The spikes of a run as lists: those of pixel p are events[starts[p]] to
// events[starts[p + 1] - 1]. A pixel is a place of one group of channels, at one time step of one
// image, after pooling. Its event is column * channels + channel, both within the group; a spike of
// value n is |n| events.
struct Events {
  uint32_t* starts[2];  // [pixels + 1] of positive spikes, and of negative ones
  uint32_t* events[2];
};

// So many events are copied together, whether there are as many or not.
constexpr int64_t kListPadding = 32;
// Outputs whose weights lie side by side, two in a word of 16 bits: the first 32 and the last 32.
constexpr int64_t kWeightBlock = 64;
// Of a tile's membranes and memories together, to stay in the first-level cache.
constexpr int64_t kStateBytes = 16 << 10;

SNM_INLINE int64_t pixels_of(const SpikeConvArguments& a) {
  return a.groups * a.time_steps * a.batch * a.height.pooled * a.width.pooled;
}

// Rows of pixels, of all groups together, which are listed one by one.
SNM_INLINE int64_t rows_of(const SpikeConvArguments& a) {
  return a.time_steps * a.batch * a.height.pooled;
}

// A unit is what one thread runs over all time steps: a row of some pixels of one image, in a block
// of outputs. Units that share weights follow each other.
struct SpikeConvPlan {
  int64_t tile;    // pixels of a unit; the last of a row may have less
  int64_t tiles;   // of a row
  int64_t blocks;  // of a group
  int64_t units;
};

SNM_INLINE SpikeConvPlan plan_of(const SpikeConvArguments& a) {
  SpikeConvPlan plan{};
  const int64_t fit = kStateBytes / (a.block * 2 * static_cast<int64_t>(sizeof(int32_t)));
  plan.tile = std::min(a.width.out, fit);
  plan.tiles = (a.width.out + plan.tile - 1) / plan.tile;
  plan.blocks = (a.out_channels / a.groups + a.block - 1) / a.block;
  plan.units = a.groups * plan.blocks * a.batch * a.height.out * plan.tiles;
  return plan;
}

// What a thread works in.
struct SpikeConvBuffers {
  uint32_t* list;  // where the weights of a pixel's events begin
  int32_t* drive;  // of a pixel
  int32_t* v;      // of a tile, as all that follows
  int32_t* m;
  int32_t* theta;
  int32_t* upper;
  int32_t* lower;
  int32_t* start;
  int32_t* bias;
  int64_t bytes;
};

// `most`: the most events that an output reads.
SNM_INLINE SpikeConvBuffers buffers_of(const SpikeConvArguments& a, const SpikeConvPlan& plan,
                                       int64_t most, char* memory) {
  SpikeConvBuffers buffers{};
  const auto take = [&](int64_t elements) {
    char* const start = memory + buffers.bytes;
    buffers.bytes += (elements * 4 + 63) / 64 * 64;
    return start;
  };
  const auto ints = [&](int64_t elements) { return reinterpret_cast<int32_t*>(take(elements)); };
  const int64_t tile = plan.tile * a.block;
  buffers.list = reinterpret_cast<uint32_t*>(take(most + kListPadding));
  buffers.drive = ints(a.block);
  buffers.v = ints(tile);
  buffers.m = ints(tile);
  buffers.theta = ints(tile);
  buffers.upper = ints(tile);
  buffers.lower = ints(tile);
  buffers.start = ints(tile);
  buffers.bias = ints(tile);
  return buffers;
}

}  // namespace snm
