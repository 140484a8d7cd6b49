// Waiting for a device.
#ifndef LIB_DEVICE_SYNCHRONIZE_H_
#define LIB_DEVICE_SYNCHRONIZE_H_

#include <c10/core/Device.h>

namespace distorch {

// Until what was asked of `device` is done, which the calls that asked need not wait for. Throws as
// LibTorch does.
void Synchronize(const c10::Device& device);

}  // namespace distorch

#endif  // LIB_DEVICE_SYNCHRONIZE_H_
