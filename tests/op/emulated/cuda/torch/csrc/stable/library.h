// What is registered for CUDA tensors takes the place of what is registered for those of the CPU.
#pragma once

#include_next <torch/csrc/stable/library.h>

#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, library) \
  _STABLE_TORCH_LIBRARY_IMPL(name, EMULATED_##key, library, C10_UID)
#define EMULATED_CUDA CPU
