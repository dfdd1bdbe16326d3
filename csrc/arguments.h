// One run of the op, as the kernels of every device take it. Knows no framework.
#pragma once

#include <cstdint>

#include "rule.h"

namespace snm {

enum class DType : int8_t { kFloat32, kFloat16, kBFloat16, kInt32, kInt8, kNone };

// An element of an int32 drive whose neurons are integers: no float is made of it.
enum class Integer : int32_t {};

// A threshold or bias that repeats over a time slice: neuron n has values[(n / inner) % period].
struct Periodic {
  const void* values;
  int64_t inner;
  int64_t period;
};

// A time slice holds `neurons` adjacent elements; steps count elements and may be 0 when read.
// Parameters and membranes are float32; int32 where `integers` says so, as the drive is then.
struct Arguments {
  Rule rule;
  int64_t time_steps;
  int64_t neurons;
  DType drive_type;
  bool integers;
  const void* drive;
  int64_t drive_step;
  const void* residual;  // of drive_type; null for none
  int64_t residual_step;
  Periodic threshold;
  Periodic bias;       // values null for none
  const void* v_in;    // null for the rule's start
  const int32_t* m_in;
  const int32_t* negative_in;  // null for 0
  void* v_out;
  int32_t* m_out;
  int32_t* negative_out;  // negative spikes sent; null where nobody counts them
  DType spikes_type;      // kInt8: s; floating: theta * s, not of integers; kNone: nothing
  void* spikes;
  int64_t spikes_step;
};

}  // namespace snm
