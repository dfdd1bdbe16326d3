// The running maximum on the CPU: checks, splits the units over torch's threads, registers.
#include <algorithm>
#include <cstddef>
#include <memory>

#include "../running_max_checks.h"
#include "running_max.h"
#include "snm.h"

namespace snm {
namespace {

// Input-steps under which a thread isn't worth waking.
constexpr int64_t kGrain = 1 << 15;
constexpr size_t kAlignment = 64;

void pool_cpu(const RunningMaxArguments& arguments, const Tensor&) {
  const CpuIsa& isa = cpu_isa();
  const RunningMaxPlan plan = plan_of(arguments);
  const int64_t bytes = buffers_of(arguments, plan, nullptr).bytes;
  const int64_t unit_steps =
      plan.rows * arguments.windows[2].in * plan.inner * arguments.time_steps;
  const int64_t grain = std::max<int64_t>(1, kGrain / unit_steps);
  torch::stable::parallel_for(0, plan.units, grain, [&](int64_t begin, int64_t end) {
    size_t room = static_cast<size_t>(bytes) + kAlignment;
    const std::unique_ptr<char[]> owned(new char[room]);
    void* memory = owned.get();
    std::align(kAlignment, static_cast<size_t>(bytes), memory, room);
    isa.pool(arguments, begin, end, static_cast<char*>(memory));
  });
}

}  // namespace
}  // namespace snm

STABLE_TORCH_LIBRARY_IMPL(snm_kernels, CPU, library) {
  library.impl("running_max_pool", TORCH_BOX(&snm::running_max_pool_op<snm::pool_cpu>));
  library.impl("adaptive_running_max_pool",
               TORCH_BOX(&snm::adaptive_running_max_pool_op<snm::pool_cpu>));
}
