// There is one device, which is always the current one.
#pragma once

#include_next <torch/csrc/stable/accelerator.h>

#define DeviceGuard EmulatedDeviceGuard

namespace torch::stable::accelerator {

struct DeviceGuard {
  explicit DeviceGuard(DeviceIndex) {}
  ~DeviceGuard() {}
};

}  // namespace torch::stable::accelerator
