// The op on the CPU: checks, splits the neurons over torch's threads, registers.
#include <algorithm>

#include "../snm_checks.h"
#include "snm.h"

namespace snm {
namespace {

// Neuron-steps under which a thread isn't worth waking.
constexpr int64_t kGrain = 1 << 15;

void launch_cpu(const Arguments& arguments, const Tensor&) {
  const CpuIsa& isa = cpu_isa();
  const int64_t blocks = (arguments.neurons + kBlock - 1) / kBlock;
  const int64_t grain = std::max<int64_t>(1, kGrain / (kBlock * arguments.time_steps));
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    isa.run(arguments, begin * kBlock, std::min(end * kBlock, arguments.neurons));
  });
}

}  // namespace
}  // namespace snm

STABLE_TORCH_LIBRARY_IMPL(snm_kernels, CPU, library) {
  library.impl("snm", TORCH_BOX(&snm::snm_op<snm::launch_cpu>));
  library.impl("snm_out", TORCH_BOX(&snm::snm_out_op<snm::launch_cpu>));
  library.impl("snm_counted", TORCH_BOX(&snm::snm_counted_op<snm::launch_cpu>));
  library.impl("snm_counted_out", TORCH_BOX(&snm::snm_counted_out_op<snm::launch_cpu>));
}
