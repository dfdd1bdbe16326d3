// Picks the instruction set of the CPU kernels at run time.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "snm.h"

#ifdef SNM_AMX
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace snm {

#define SNM_DECLARE_MATRIX(isa)                                                          \
  namespace isa {                                                                        \
  bool sum_windows(const SpikeConvInputs& inputs, int64_t begin, int64_t end,            \
                   int8_t* sums);                                                        \
  void convolve_densely(const SpikeConvArguments<int32_t>& arguments, int64_t begin,     \
                        int64_t end, char* memory);                                      \
  }
#define SNM_MATRIX(isa, name) {name, isa::sum_windows, isa::convolve_densely}

#define SNM_DECLARE_ISA(isa)                                                             \
  SNM_DECLARE_MATRIX(isa)                                                                \
  namespace isa {                                                                        \
  void run_neurons(const Arguments& arguments, int64_t begin, int64_t end);              \
  void pool_units(const RunningMaxArguments& arguments, int64_t begin, int64_t end,      \
                  char* memory);                                                         \
  void count_events(const SpikeConvInputs& inputs, const Events& events, int64_t begin,  \
                    int64_t end);                                                        \
  void list_events(const SpikeConvInputs& inputs, const Events& events, int64_t begin,   \
                   int64_t end);                                                         \
  void convolve_integers(const SpikeConvArguments<int32_t>& arguments,                   \
                         const Events& events, int64_t most, int64_t begin, int64_t end, \
                         char* memory);                                                  \
  void convolve_floats(const SpikeConvArguments<float>& arguments, const Events& events, \
                       int64_t most, int64_t begin, int64_t end, char* memory);          \
  }
#define SNM_ISA_NAMED(isa)                                                               \
  {#isa,             isa::run_neurons,       isa::pool_units,      isa::count_events,    \
   isa::list_events, isa::convolve_integers, isa::convolve_floats, SNM_MATRIX(isa, "plain")}

SNM_DECLARE_ISA(baseline)
#ifdef SNM_X86
SNM_DECLARE_ISA(avx2)
SNM_DECLARE_ISA(avx512)
SNM_DECLARE_MATRIX(vnni)
#endif
#ifdef SNM_AMX
SNM_DECLARE_MATRIX(amx)
#endif

namespace {

// The one of these, best first, that a variable of the environment names; the best if it is not set.
template <class Named>
Named choose(const std::vector<Named>& usable, const char* variable) {
  const char* wanted = std::getenv(variable);
  if (wanted == nullptr) return usable.front();
  std::string names;
  for (const Named& each : usable) {
    if (std::string(each.name) == wanted) return each;
    names += names.empty() ? each.name : std::string(", ") + each.name;
  }
  throw std::runtime_error(std::string("snm: ") + variable + " must be one of " + names +
                           " here, got " + wanted);
}

#ifdef SNM_AMX
// Whether there are tiles, and the system lets this process have their registers.
bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned tiles = 1U << 24, of_8_bits = 1U << 25;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & tiles) == 0 || (d & of_8_bits) == 0) return false;
#ifdef __linux__
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// Those that this processor has, best first.
std::vector<CpuIsa> usable_isas() {
  std::vector<CpuIsa> usable;
#ifdef SNM_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("bmi2")) {
    usable.push_back(SNM_ISA_NAMED(avx512));
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2")) {
    usable.push_back(SNM_ISA_NAMED(avx2));
  }
#endif
  usable.push_back(SNM_ISA_NAMED(baseline));
  return usable;
}

// Those that go with an instruction set, best first.
std::vector<CpuMatrix> usable_matrices(const CpuIsa& isa) {
  std::vector<CpuMatrix> usable;
#ifdef SNM_X86
  if (isa.run == avx512::run_neurons && __builtin_cpu_supports("avx512vnni")) {
#ifdef SNM_AMX
    if (has_tiles()) usable.push_back(SNM_MATRIX(amx, "amx"));
#endif
    usable.push_back(SNM_MATRIX(vnni, "vnni"));
  }
#endif
  usable.push_back(isa.matrix);
  return usable;
}

CpuIsa choose_isa() {
  CpuIsa isa = choose(usable_isas(), "SNM_CPU_ISA");
  isa.matrix = choose(usable_matrices(isa), "SNM_CPU_MATRIX");
  return isa;
}

}  // namespace

const CpuIsa& cpu_isa() {
  static const CpuIsa chosen = choose_isa();
  return chosen;
}

}  // namespace snm
