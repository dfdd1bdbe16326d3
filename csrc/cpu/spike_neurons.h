// The neurons that a layer of spikes drives, on the CPU, whichever way the layer is computed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../spike_conv.h"
#include "lanes.h"

namespace snm {
namespace {

// Outputs of one pixel over some time steps; null for what there isn't. Parameters are whole
// vectors; what is behind the last output is computed and never read.
struct Driven {
  const int32_t* drive;
  int64_t drive_step;
  const int32_t* bias;
  const int32_t* residual;
  int64_t residual_step;
  int32_t* out;  // where no neurons are
  int8_t* sent;
  int64_t step;  // of out and sent
  const int32_t* theta;
  const int32_t* upper;
  const int32_t* lower;
  int32_t* v;
  int32_t* m;
};

// Outputs [j, j + count) of a pixel, at most kLanes.
template <bool kGraded, bool kWhole>
SNM_INLINE void fire(const Driven& d, const Rule& rule, int64_t steps, int64_t j, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(int32_t));
  const Ints bias = d.bias == nullptr ? Ints{} : load<Ints>(d.bias + j);
  const auto drive = [&](int64_t t) {
    return IntegerLanes::add(load<Ints>(d.drive + t * d.drive_step + j), bias);
  };
  if (d.out != nullptr) {
    for (int64_t t = 0; t < steps; ++t) store<kWhole>(drive(t), d.out + t * d.step + j, bytes);
    return;
  }
  const Thresholds<IntegerLanes> own{load<Ints>(d.theta + j), load<Ints>(d.upper + j),
                                     load<Ints>(d.lower + j)};
  Ints v = load<Ints, kWhole>(d.v + j, bytes);
  Ints m = load<Ints, kWhole>(d.m + j, bytes);
  for (int64_t t = 0; t < steps; ++t) {
    Ints c = drive(t);
    if (d.residual != nullptr) {
      c = IntegerLanes::add(c, load<Ints, kWhole>(d.residual + t * d.residual_step + j, bytes));
    }
    const Step<IntegerLanes> sent = step<kGraded, IntegerLanes>(c, own, v, m, rule);
    if (d.sent != nullptr) store<kWhole>(low_bytes(sent.s), d.sent + t * d.step + j, count);
  }
  store<kWhole>(v, d.v + j, bytes);
  store<kWhole>(m, d.m + j, bytes);
}

template <bool kGraded>
SNM_INLINE void fire_all(const Driven& d, const Rule& rule, int64_t steps, int64_t count) {
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) fire<kGraded, true>(d, rule, steps, j, kLanes);
  if (j < count) fire<kGraded, false>(d, rule, steps, j, count - j);
}

// What neurons compare with, and where they start; arrays of one number for each of them.
struct Compared {
  int32_t* theta;
  int32_t* upper;
  int32_t* lower;
  int32_t* start;
};

// Copies `count` numbers and makes `whole` of them, with `rest` behind.
SNM_INLINE void read(const int32_t* values, int64_t count, int64_t whole, int32_t rest,
                     int32_t* to) {
  std::copy_n(values, count, to);
  std::fill_n(to + count, whole - count, rest);
}

SNM_INLINE void prepare(const int32_t* threshold, int64_t count, int64_t whole, const Rule& rule,
                        const Compared& to) {
  read(threshold, count, whole, kSilent, to.theta);
  for (int64_t j = 0; j < whole; ++j) {
    const auto each = integer_thresholds(to.theta[j], rule);
    to.upper[j] = each.upper;
    to.lower[j] = each.lower;
    to.start[j] = integer_starting_membrane(to.theta[j], rule);
  }
}

// The rule as thresholds of integers have it.
SNM_INLINE Rule rule_of(const SpikeConvArguments& a) {
  Rule rule = a.rule;
  rule.strict = true;
  return rule;
}

}  // namespace
}  // namespace snm
