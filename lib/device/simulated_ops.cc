#include "lib/device/simulated_ops.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "lib/device/simulated_memory.h"

namespace distorch::simulated {
namespace {

constexpr c10::DispatchKeySet kCpuKeys(c10::DispatchKey::CPU);
constexpr c10::DispatchKeySet kSimulatedKeys(c10::DispatchKey::PrivateUse1);

bool IsSimulated(const at::Tensor& tensor) { return tensor.device().type() == kDeviceType; }

// "sim" without an index means the thread's current device.
c10::Device Resolve(c10::Device device) {
  return device.has_index() ? device : c10::impl::VirtualGuardImpl(kDeviceType).getDevice();
}

void CopyGeometry(const at::Tensor& from, c10::TensorImpl* to) {
  to->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
}

at::Tensor CpuAlias(const at::Tensor& simulated) {
  at::Tensor alias = at::detail::make_tensor<c10::TensorImpl>(CpuStorage(simulated.storage()),
                                                              kCpuKeys, simulated.dtype());
  CopyGeometry(simulated, alias.unsafeGetTensorImpl());
  return alias;
}

// The tensor `cpu` over `storage`, the simulated storage around cpu's own.
at::Tensor OverStorage(const at::Tensor& cpu, c10::Storage storage) {
  at::Tensor tensor =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), kSimulatedKeys, cpu.dtype());
  CopyGeometry(cpu, tensor.unsafeGetTensorImpl());
  return tensor;
}

at::Tensor ViewOf(const at::Tensor& simulated, const at::Tensor& cpu) {
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(simulated.storage()), simulated.key_set(), cpu.dtype());
  CopyGeometry(cpu, view.unsafeGetTensorImpl());
  return view;
}

// One call of a CPU kernel on behalf of simulated tensors.
class CpuCall {
 public:
  CpuCall(const c10::OperatorHandle& op, torch::jit::Stack* stack) : op_(op), stack_(stack) {}

  void Run() {
    // A kernel may reallocate what it writes to, even when it fails afterwards.
    const absl::Cleanup follow = [this] {
      for (const Operand& operand : operands_) {
        if (operand.written) FollowCpuStorage(operand.simulated.storage());
      }
    };
    ReplaceArguments();
    {
      at::AutoDispatchBelowADInplaceOrView below_autograd;
      op_.redispatchBoxed(kCpuKeys, stack_);
    }
    ReplaceReturns();
  }

 private:
  struct Operand {
    at::Tensor simulated;
    at::Tensor alias;
    bool written;
  };

  void ReplaceArguments() {
    const auto& schema = op_.schema().arguments();
    const size_t begin = stack_->size() - schema.size();
    for (size_t i = 0; i < schema.size(); ++i) {
      const c10::AliasInfo* alias_info = schema[i].alias_info();
      ReplaceArgument((*stack_)[begin + i], alias_info != nullptr && alias_info->isWrite());
    }
    // Where no device is asked for, outputs go where the operands are.
    if (!target_ && !operands_.empty()) target_ = operands_.front().simulated.device();
  }

  void ReplaceArgument(c10::IValue& value, bool written) {
    if (value.isTensor()) {
      value = Replace(value.toTensor(), written);
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> aliases;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        aliases.push_back(Replace(tensor, written));
      }
      value = std::move(aliases);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> aliases;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        aliases.push_back(tensor ? std::optional(Replace(*tensor, written)) : std::nullopt);
      }
      value = std::move(aliases);
    } else if (value.isDevice()) {
      target_ = value.toDevice();
      if (target_->type() != kDeviceType) return;
      target_ = Resolve(*target_);
      value = c10::Device(c10::kCPU);
    }
  }

  at::Tensor Replace(const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    const bool scalar = !IsSimulated(tensor) && tensor.is_cpu() && tensor.dim() == 0 && !written;
    if (!scalar) CheckDevice(tensor.device());
    if (!IsSimulated(tensor)) return tensor;
    operands_.push_back({tensor, CpuAlias(tensor), written});
    return operands_.back().alias;
  }

  void CheckDevice(c10::Device device) {
    if (!operand_device_) operand_device_ = device;
    TORCH_CHECK(device == *operand_device_, c10::toString(op_.operator_name()),
                ": expected all tensors to be on the same device, but found at least two, ",
                UserName(*operand_device_), " and ", UserName(device));
  }

  void ReplaceReturns() {
    for (const Operand& operand : operands_) {
      if (operand.written) CopyGeometry(operand.alias, operand.simulated.unsafeGetTensorImpl());
    }
    const size_t begin = stack_->size() - op_.schema().returns().size();
    for (size_t i = begin; i < stack_->size(); ++i) {
      c10::IValue& value = (*stack_)[i];
      if (value.isTensor()) {
        value = Restore(value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> restored;
        for (const at::Tensor& tensor : value.toTensorVector()) restored.push_back(Restore(tensor));
        value = std::move(restored);
      }
    }
  }

  at::Tensor Restore(const at::Tensor& cpu) {
    if (!cpu.defined()) return cpu;
    for (const Operand& operand : operands_) {
      if (cpu.is_same(operand.alias)) return operand.simulated;
    }
    for (const Operand& operand : operands_) {
      if (cpu.storage().is_alias_of(operand.alias.storage())) {
        return ViewOf(operand.simulated, cpu);
      }
    }
    if (!target_ || target_->type() != kDeviceType) return cpu;
    at::Tensor output = OverStorage(cpu, AdoptStorage(cpu.storage(), *target_));
    // Another output may be a view of this one.
    operands_.push_back({output, cpu, /*written=*/false});
    return output;
  }

  const c10::OperatorHandle& op_;
  torch::jit::Stack* const stack_;
  c10::SmallVector<Operand, 8> operands_;
  std::optional<c10::Device> operand_device_;
  std::optional<c10::Device> target_;
};

void RunOnCpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) { CpuCall(op, stack).Run(); }

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> memory_format) {
  const c10::Device target = Resolve(device.value_or(kDeviceType));
  const at::Tensor cpu = at::detail::empty_generic(size, &AllocatorOf(target), kCpuKeys,
                                                   at::dtype_or_default(dtype), memory_format);
  return OverStorage(cpu, WrapStorage(cpu.storage(), target));
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                        std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                        std::optional<at::Device> device, std::optional<bool>) {
  const c10::Device target = Resolve(device.value_or(kDeviceType));
  const at::Tensor cpu = at::detail::empty_strided_generic(size, stride, &AllocatorOf(target),
                                                           kCpuKeys, at::dtype_or_default(dtype));
  return OverStorage(cpu, WrapStorage(cpu.storage(), target));
}

// Copies between any two of the simulated devices and the CPU.
at::Tensor CopyFrom(const at::Tensor& self, const at::Tensor& dst, bool /*non_blocking*/) {
  const auto on_cpu = [](const at::Tensor& t) { return IsSimulated(t) ? CpuAlias(t) : t; };
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  on_cpu(dst).copy_(on_cpu(self));
  return dst;
}

at::Tensor& SetStorage(at::Tensor& self, at::Storage source) {
  const auto elements = static_cast<int64_t>(source.nbytes() / self.element_size());
  return at::native::set_storage_cpu_(self, std::move(source), 0, elements, {});
}

// What the dispatcher's composites are built on: allocation, copies, and views over the same
// storage.
void RegisterFoundation(torch::Library& aten) {
  aten.impl("empty.memory_format", &Empty);
  aten.impl("empty_strided", &EmptyStrided);
  aten.impl("_copy_from", &CopyFrom);
  aten.impl("as_strided", &at::native::as_strided_tensorimpl);
  aten.impl("view", &at::native::view);
  aten.impl("_reshape_alias", &at::native::_reshape_alias);
  aten.impl("set_.source_Storage", &SetStorage);
  aten.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  aten.impl("set_.source_Tensor", &at::native::set_tensor_);
}

// Composites that take another path where the tensors are not the CPU's: these run as a whole on
// the aliases.
constexpr const char* kDeviceDependentComposites[] = {
    "_convolution",
    "adaptive_avg_pool2d",
    "batch_norm",
    "convolution",
    "group_norm",
    "layer_norm",
    "linear",
    "matmul",
    "max_pool2d",
    "rms_norm",
    "softmax.int",
    "log_softmax.int",
    "scaled_dot_product_attention",
};

}  // namespace

void RegisterOperators() {
  static torch::Library& aten = *new torch::Library(
      torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static torch::Library& fallback = *new torch::Library(
      torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  const auto run_on_cpu = [] { return torch::CppFunction::makeFromBoxedFunction<&RunOnCpu>(); };

  RegisterFoundation(aten);
  for (const char* name : kDeviceDependentComposites) aten.impl(name, run_on_cpu());
  // The fallback is only reached by operators without a composite implementation; where there is
  // one and the CPU has a kernel of its own as well, its own is what must run.
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.getNamespace() != "aten") continue;
    const std::optional<c10::OperatorHandle> op = dispatcher.findOp(name);
    if (!op || !op->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
        op->hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1)) {
      continue;
    }
    aten.impl(c10::toString(name).c_str(), run_on_cpu());
  }
  fallback.fallback(run_on_cpu());
}

}  // namespace distorch::simulated
