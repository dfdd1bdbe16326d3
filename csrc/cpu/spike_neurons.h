// The neurons that a layer of spikes drives, on the CPU, whichever way the layer is computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../spike_conv.h"
#include "lanes.h"

namespace snm {
namespace {

// The neurons of a kind of number, one by one and several at once.
template <class Number>
struct Neurons;

template <>
struct Neurons<int32_t> {
  using V = IntegerLanes;
  static constexpr int32_t kNever = kSilent;

  static Thresholds<IntegerScalar> compared(int32_t theta, const Rule& rule) {
    return integer_thresholds(theta, rule);
  }
  static int32_t start(int32_t theta, const Rule& rule) {
    return integer_starting_membrane(theta, rule);
  }
};

template <>
struct Neurons<float> {
  using V = Lanes;
  static constexpr float kNever = std::numeric_limits<float>::infinity();

  static Thresholds<Scalar> compared(float theta, const Rule& rule) {
    return thresholds<Scalar>(theta, rule);
  }
  static float start(float theta, const Rule& rule) {
    return starting_membrane<Scalar>(compared(theta, rule).theta, rule);
  }
};

// Outputs of one pixel over some time steps; null for what there isn't. Parameters are whole
// vectors; what is behind the last output is computed and never read.
template <class Number>
struct Driven {
  const Number* drive;
  int64_t drive_step;
  const Number* bias;
  const Number* residual;
  int64_t residual_step;
  Number* out;  // where no neurons are
  int8_t* sent;
  int64_t step;  // of out and sent
  const Number* theta;
  const Number* upper;
  const Number* lower;
  Number* v;
  int32_t* m;
};

// Outputs [j, j + count) of a pixel, at most kLanes. No drive is -0.0, to which 0 may not be added.
template <bool kGraded, bool kWhole, class Number>
SNM_INLINE void fire(const Driven<Number>& d, const Rule& rule, int64_t steps, int64_t j,
                     int64_t count) {
  using V = typename Neurons<Number>::V;
  using Numbers = typename V::Number;
  const int64_t bytes = count * static_cast<int64_t>(sizeof(Number));
  const Numbers bias = d.bias == nullptr ? Numbers{} : load<Numbers>(d.bias + j);
  const auto drive = [&](int64_t t) {
    return V::add(load<Numbers>(d.drive + t * d.drive_step + j), bias);
  };
  if (d.out != nullptr) {
    for (int64_t t = 0; t < steps; ++t) store<kWhole>(drive(t), d.out + t * d.step + j, bytes);
    return;
  }
  const Thresholds<V> own{load<Numbers>(d.theta + j), load<Numbers>(d.upper + j),
                          load<Numbers>(d.lower + j)};
  Numbers v = load<Numbers, kWhole>(d.v + j, bytes);
  Ints m = load<Ints, kWhole>(d.m + j, bytes);
  for (int64_t t = 0; t < steps; ++t) {
    Numbers c = drive(t);
    if (d.residual != nullptr) {
      c = V::add(c, load<Numbers, kWhole>(d.residual + t * d.residual_step + j, bytes));
    }
    const Step<V> sent = step<kGraded, V>(c, own, v, m, rule);
    if (d.sent != nullptr) store<kWhole>(low_bytes(sent.s), d.sent + t * d.step + j, count);
  }
  store<kWhole>(v, d.v + j, bytes);
  store<kWhole>(m, d.m + j, bytes);
}

template <bool kGraded, class Number>
SNM_INLINE void fire_all(const Driven<Number>& d, const Rule& rule, int64_t steps, int64_t count) {
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) fire<kGraded, true>(d, rule, steps, j, kLanes);
  if (j < count) fire<kGraded, false>(d, rule, steps, j, count - j);
}

// What neurons compare with, and where they start; arrays of one number for each of them.
template <class Number>
struct Compared {
  Number* theta;
  Number* upper;
  Number* lower;
  Number* start;
};

// Copies `count` numbers and makes `whole` of them, with `rest` behind.
template <class Number>
SNM_INLINE void read(const Number* values, int64_t count, int64_t whole, Number rest, Number* to) {
  std::copy_n(values, count, to);
  std::fill_n(to + count, whole - count, rest);
}

template <class Number>
SNM_INLINE void prepare(const Number* threshold, int64_t count, int64_t whole, const Rule& rule,
                        const Compared<Number>& to) {
  using Kind = Neurons<Number>;
  read(threshold, count, whole, Kind::kNever, to.theta);
  for (int64_t j = 0; j < whole; ++j) {
    const auto each = Kind::compared(to.theta[j], rule);
    to.start[j] = Kind::start(to.theta[j], rule);
    to.theta[j] = each.theta;
    to.upper[j] = each.upper;
    to.lower[j] = each.lower;
  }
}

// The rule as thresholds have it: strict where they are of integers.
template <class Number>
SNM_INLINE Rule rule_of(const SpikeConvArguments<Number>& a) {
  Rule rule = a.rule;
  rule.strict |= Neurons<Number>::V::kIntegers;
  return rule;
}

}  // namespace
}  // namespace snm
