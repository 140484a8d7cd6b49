#include "lib/device/synchronize.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace distorch {

void Synchronize(const c10::Device& device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

}  // namespace distorch
