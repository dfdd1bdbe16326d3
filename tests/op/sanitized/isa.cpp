// Stands in for csrc/cpu/cpu_isa.cpp where one instruction set is compiled, of layers alone.
#include "../../../csrc/cpu/snm.h"
#include "../../../csrc/cpu/spike_conv.h"

namespace snm {

namespace SNM_ISA {
void count_events(const SpikeConvInputs& inputs, const Events& events, int64_t begin, int64_t end);
void list_events(const SpikeConvInputs& inputs, const Events& events, int64_t begin, int64_t end);
void convolve_integers(const SpikeConvArguments<int32_t>& arguments, const Events& events,
                       int64_t most, int64_t begin, int64_t end, char* memory);
void convolve_floats(const SpikeConvArguments<float>& arguments, const Events& events,
                     int64_t most, int64_t begin, int64_t end, char* memory);
bool sum_windows(const SpikeConvInputs& inputs, int64_t begin, int64_t end, int8_t* sums);
void convolve_densely(const SpikeConvArguments<int32_t>& arguments, int64_t begin, int64_t end,
                      char* memory);
}  // namespace SNM_ISA

const CpuIsa& cpu_isa() {
  static const CpuIsa only{"sanitized",
                           nullptr,
                           nullptr,
                           SNM_ISA::count_events,
                           SNM_ISA::list_events,
                           SNM_ISA::convolve_integers,
                           SNM_ISA::convolve_floats,
                           {"sanitized", SNM_ISA::sum_windows, SNM_ISA::convolve_densely}};
  return only;
}

}  // namespace snm
