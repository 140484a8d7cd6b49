// A dense tensor in host memory, free of LibTorch, as it crosses the border between the core and
// the server.
#ifndef LIB_BASE_HOST_TENSOR_H_
#define LIB_BASE_HOST_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/dtype.h"

namespace distorch {

// Row-major, little-endian. Whoever makes one keeps data.size() == product(shape) *
// DTypeSize(dtype).
struct HostTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string data;
};

}  // namespace distorch

#endif  // LIB_BASE_HOST_TENSOR_H_
