// The operators of the simulated devices: each runs as the CPU runs it, over CPU aliases of its
// operands.
#ifndef LIB_DEVICE_SIMULATED_OPS_H_
#define LIB_DEVICE_SIMULATED_OPS_H_

namespace distorch::simulated {

// Registers kernels for PrivateUse1 with LibTorch's dispatcher; to be called once a process. They
// must be called with autograd off; its formulas are not registered.
//
// An operator's operands are aliased as CPU tensors over the same memory and it runs as on the CPU,
// so its results are bit-identical to the CPU's. A fresh output's memory is adopted and counted; an
// output that shares an operand's memory becomes a view of that operand. Throws c10::Error if
// operands lie on different devices (CPU tensors of dimension zero count as scalars),
// c10::OutOfMemoryError if an output does not fit.
void RegisterOperators();

}  // namespace distorch::simulated

#endif  // LIB_DEVICE_SIMULATED_OPS_H_
