// The neuron on the CPU. Knows no framework and no threads: the caller splits the neurons.
#pragma once

#include <cstdint>

#include "../arguments.h"
#include "../running_max_rule.h"
#include "../spike_conv.h"

namespace snm {

// Neurons are handed out in blocks of this many, so that threads share no cache line where tensors
// start on one.
constexpr int64_t kBlock = 64;

using CpuKernel = void (*)(const Arguments& arguments, int64_t begin, int64_t end);
using CpuPoolKernel = void (*)(const RunningMaxArguments& arguments, int64_t begin, int64_t end,
                               char* memory);
struct Events;
using CpuEventsKernel = void (*)(const SpikeConvInputs& inputs, const Events& events,
                                 int64_t begin, int64_t end);
template <class Number>
using CpuConvKernel = void (*)(const SpikeConvArguments<Number>& arguments, const Events& events,
                               int64_t most, int64_t begin, int64_t end, char* memory);

using CpuWindowsKernel = bool (*)(const SpikeConvInputs& inputs, int64_t begin, int64_t end,
                                  int8_t* sums);
using CpuDenseKernel = void (*)(const SpikeConvArguments<int32_t>& arguments, int64_t begin,
                                int64_t end, char* memory);

// How a processor multiplies matrices of 8 bits.
struct CpuMatrix {
  const char* name;
  CpuWindowsKernel windows;  // sums windows of rows [begin, end); whether all sums fit in 8 bits
  CpuDenseKernel convolve;   // runs units [begin, end) of a DensePlan
};

struct CpuIsa {
  const char* name;
  CpuKernel run;       // runs neurons [begin, end) over all time steps
  CpuPoolKernel pool;  // runs units [begin, end) of a RunningMaxPlan, in memory for its buffers
  CpuEventsKernel count;  // counts the spikes of rows [begin, end), each pixel's behind its own
  CpuEventsKernel list;   // lists them, once counts have become starts
  CpuConvKernel<int32_t> convolve_integers;  // runs units [begin, end) of a SpikeConvPlan
  CpuConvKernel<float> convolve_floats;
  CpuMatrix matrix;
};

// The best instruction set built in that this processor has, or the one that SNM_CPU_ISA names; of
// those that multiply matrices, the best beside it, or the one that SNM_CPU_MATRIX names. Throws
// std::runtime_error if that one is unknown or not to be had.
const CpuIsa& cpu_isa();

}  // namespace snm
