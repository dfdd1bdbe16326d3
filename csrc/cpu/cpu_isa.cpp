// Picks the instruction set of the CPU kernels at run time.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "snm.h"

namespace snm {

#ifdef SNM_X86
namespace avx512 {
void run_neurons(const Arguments& arguments, int64_t begin, int64_t end);
void pool_units(const RunningMaxArguments& arguments, int64_t begin, int64_t end, char* memory);
void count_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                  int64_t end);
void list_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                 int64_t end);
void convolve_events(const SpikeConvArguments& arguments, const Events& events, int64_t most,
                     int64_t begin, int64_t end, char* memory);
}
namespace avx2 {
void run_neurons(const Arguments& arguments, int64_t begin, int64_t end);
void pool_units(const RunningMaxArguments& arguments, int64_t begin, int64_t end, char* memory);
void count_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                  int64_t end);
void list_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                 int64_t end);
void convolve_events(const SpikeConvArguments& arguments, const Events& events, int64_t most,
                     int64_t begin, int64_t end, char* memory);
}
#endif
namespace baseline {
void run_neurons(const Arguments& arguments, int64_t begin, int64_t end);
void pool_units(const RunningMaxArguments& arguments, int64_t begin, int64_t end, char* memory);
void count_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                  int64_t end);
void list_events(const SpikeConvArguments& arguments, const Events& events, int64_t begin,
                 int64_t end);
void convolve_events(const SpikeConvArguments& arguments, const Events& events, int64_t most,
                     int64_t begin, int64_t end, char* memory);
}

namespace {

// Those that this processor has, best first.
std::vector<CpuIsa> usable_isas() {
  std::vector<CpuIsa> usable;
#ifdef SNM_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("bmi2")) {
    usable.push_back({"avx512", avx512::run_neurons, avx512::pool_units, avx512::count_events,
                      avx512::list_events, avx512::convolve_events});
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2")) {
    usable.push_back({"avx2", avx2::run_neurons, avx2::pool_units, avx2::count_events,
                      avx2::list_events, avx2::convolve_events});
  }
#endif
  usable.push_back({"baseline", baseline::run_neurons, baseline::pool_units,
                    baseline::count_events, baseline::list_events, baseline::convolve_events});
  return usable;
}

CpuIsa choose_isa() {
  const std::vector<CpuIsa> usable = usable_isas();
  const char* wanted = std::getenv("SNM_CPU_ISA");
  if (wanted == nullptr) return usable.front();
  std::string names;
  for (const CpuIsa& isa : usable) {
    if (std::string(isa.name) == wanted) return isa;
    names += names.empty() ? isa.name : std::string(", ") + isa.name;
  }
  throw std::runtime_error("snm: SNM_CPU_ISA must be one of " + names + " here, got " + wanted);
}

}  // namespace

const CpuIsa& cpu_isa() {
  static const CpuIsa chosen = choose_isa();
  return chosen;
}

}  // namespace snm
