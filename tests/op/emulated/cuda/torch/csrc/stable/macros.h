// A launch that failed throws what the emulation says of it.
#pragma once

#include_next <torch/csrc/stable/macros.h>

#undef STD_CUDA_KERNEL_LAUNCH_CHECK
#define STD_CUDA_KERNEL_LAUNCH_CHECK() emulated::check_launch()

namespace emulated {

void check_launch();

}  // namespace emulated
