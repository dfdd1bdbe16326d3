// How the CPU walks a convolution of spikes, known to the kernel and to who calls it.
#pragma once

#include <algorithm>
#include <type_traits>

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
// Outputs whose weights lie side by side; of 8 bits, two in a word of 16: the first 32 and the last
// 32.
constexpr int64_t kWeightBlock = 64;
// Of a tile's membranes and memories together, to stay in the first-level cache.
constexpr int64_t kStateBytes = 16 << 10;

SNM_INLINE int64_t pixels_of(const SpikeConvInputs& a) {
  return a.groups * a.time_steps * a.batch * a.height.pooled * a.width.pooled;
}

// Rows of pixels, of all groups together, which are listed one by one.
SNM_INLINE int64_t rows_of(const SpikeConvInputs& a) {
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

template <class Number>
SNM_INLINE SpikeConvPlan plan_of(const SpikeConvArguments<Number>& a) {
  SpikeConvPlan plan{};
  const int64_t fit = kStateBytes / (a.block * 2 * static_cast<int64_t>(sizeof(int32_t)));
  plan.tile = std::min(a.width.out, fit);
  plan.tiles = (a.width.out + plan.tile - 1) / plan.tile;
  plan.blocks = (a.out_channels / a.groups + a.block - 1) / a.block;
  plan.units = a.groups * plan.blocks * a.batch * a.height.out * plan.tiles;
  return plan;
}

// What a thread works in, by events.
template <class Number>
struct SpikeConvBuffers {
  uint32_t* list;  // where the weights of a pixel's events begin
  Number* drive;   // of a pixel
  Number* v;       // of a tile, as all that follows
  int32_t* m;
  Number* theta;
  Number* upper;
  Number* lower;
  Number* start;
  Number* bias;
  int64_t bytes;
};

// `most`: the most events that an output reads.
template <class Number>
SNM_INLINE SpikeConvBuffers<Number> buffers_of(const SpikeConvArguments<Number>& a,
                                               const SpikeConvPlan& plan, int64_t most,
                                               char* memory) {
  SpikeConvBuffers<Number> buffers{};
  const auto take = [&](auto*& to, int64_t elements) {
    to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(memory + buffers.bytes);
    buffers.bytes += (elements * 4 + 63) / 64 * 64;
  };
  const int64_t tile = plan.tile * a.block;
  take(buffers.list, most + kListPadding);
  take(buffers.drive, a.block);
  take(buffers.v, tile);
  take(buffers.m, tile);
  take(buffers.theta, tile);
  take(buffers.upper, tile);
  take(buffers.lower, tile);
  take(buffers.start, tile);
  take(buffers.bias, tile);
  return buffers;
}

// --- dense: products of matrices ---

// Inputs of a tile of a matrix, one byte each; and outputs of a panel of the weight.
constexpr int64_t kDepth = 64;
constexpr int64_t kPanel = 16;
// Panels that are computed together.
constexpr int64_t kPanels = 4;
// Rows of inputs of a tile; products take two tiles at a time.
constexpr int64_t kTileRows = 16;
// Rows that a unit makes of its inputs at once, as its weights are read once for all of them, and
// the time steps among them.
constexpr int64_t kBandRows = 128;
constexpr int64_t kBandSteps = 32;
// Units that a layer has at least, if it can.
constexpr int64_t kFewestUnits = 8;

// A unit is what one thread runs over all time steps: some pixels of the batch, and all panels of a
// group or a part of them.
struct DensePlan {
  int64_t taps;
  int64_t channels;  // that a group reads
  int64_t outputs;   // of a group
  int64_t depth;     // inputs of an output, up to whole tiles; 0 where there are no products
  int64_t panels;    // of a group
  int64_t pixels;    // of the batch
  int64_t steps;     // at once
  int64_t band;      // pixels of a unit
  int64_t bands;
  int64_t part;      // panels of a unit
  int64_t parts;
  int64_t units;
  int64_t rows;      // of inputs that are made at once, up to whole pairs of tiles
};

SNM_INLINE DensePlan dense_plan_of(const SpikeConvInputs& a) {
  const auto parts_of = [](int64_t all, int64_t each) { return (all + each - 1) / each; };
  DensePlan plan{};
  plan.taps = a.height.kernel * a.width.kernel;
  plan.channels = a.in_channels / a.groups;
  plan.outputs = a.out_channels / a.groups;
  plan.depth = a.depthwise ? 0 : parts_of(plan.taps * plan.channels, kDepth) * kDepth;
  plan.panels = parts_of(plan.outputs, kPanel);
  plan.pixels = a.batch * a.height.out * a.width.out;
  plan.steps = std::min(a.time_steps, kBandSteps);
  plan.band = std::max<int64_t>(1, kBandRows / plan.steps);
  plan.bands = parts_of(plan.pixels, plan.band);
  const int64_t wanted = parts_of(kFewestUnits, std::max<int64_t>(1, a.groups * plan.bands));
  const int64_t most = parts_of(plan.panels, kPanels);
  plan.part = parts_of(most, std::min(most, wanted)) * kPanels;
  plan.parts = parts_of(plan.panels, plan.part);
  plan.units = a.groups * plan.bands * plan.parts;
  plan.rows = parts_of(plan.band * plan.steps, 2 * kTileRows) * 2 * kTileRows;
  return plan;
}

// Where a layer that reads every channel by itself finds spikes, and their weights.
struct Tap {
  int64_t spikes;
  int64_t weights;
};

// What a thread works in, densely.
struct DenseBuffers {
  Tap* taps;
  uint8_t* row;      // the inputs of an output
  uint8_t* tiles;    // those of a band
  int32_t* drive;    // of a band, in kPanels panels
  int32_t* theta;    // of a group, as all that follows
  int32_t* upper;
  int32_t* lower;
  int32_t* start;
  int32_t* bias;
  int64_t bytes;
};

SNM_INLINE DenseBuffers dense_buffers_of(const DensePlan& plan, char* memory) {
  DenseBuffers buffers{};
  const auto bytes = [&](int64_t size) {
    char* const start = memory + buffers.bytes;
    buffers.bytes += (size + 63) / 64 * 64;
    return reinterpret_cast<uint8_t*>(start);
  };
  const auto ints = [&](int64_t count) { return reinterpret_cast<int32_t*>(bytes(4 * count)); };
  const int64_t outputs = plan.panels * kPanel;
  buffers.taps = reinterpret_cast<Tap*>(bytes(plan.taps * static_cast<int64_t>(sizeof(Tap))));
  buffers.row = bytes(plan.depth);
  buffers.tiles = bytes(plan.rows * plan.depth);
  buffers.drive = ints(plan.rows * kPanels * kPanel);
  buffers.theta = ints(outputs);
  buffers.upper = ints(outputs);
  buffers.lower = ints(outputs);
  buffers.start = ints(outputs);
  buffers.bias = ints(outputs);
  return buffers;
}

}  // namespace snm
