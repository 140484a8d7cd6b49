// How fast a device computes.
#ifndef LIB_DEVICE_DEVICE_SPEED_H_
#define LIB_DEVICE_DEVICE_SPEED_H_

#include <algorithm>
#include <limits>

namespace distorch {

struct DeviceSpeed {
  double flops_per_second = 0;  // of large matrix products; above 0
  double bytes_per_second = std::numeric_limits<double>::infinity();  // of its memory

  // What is limited by the one or by the other.
  double Seconds(double flops, double bytes) const {
    return std::max(flops / flops_per_second, bytes / bytes_per_second);
  }
};

}  // namespace distorch

#endif  // LIB_DEVICE_DEVICE_SPEED_H_
