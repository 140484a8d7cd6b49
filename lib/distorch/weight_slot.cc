#include "lib/distorch/weight_slot.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "lib/checkpoint/dequantize.h"

namespace distorch {
namespace {

int MeterIndex(const TransferMeter& meter, const at::Device& device) {
  return static_cast<int>(DeviceIndex(device, meter.devices().size()));
}

int64_t NanosecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() -
                                                              start)
      .count();
}

// What is stored as values in `wanted`; the same tensor when that is how they are stored.
at::Tensor Decode(at::Tensor stored, const StorageFormat& format, const std::vector<int64_t>& shape,
                  at::ScalarType wanted) {
  if (IsQuantized(format.dtype)) return Dequantize(format.dtype, stored, shape, wanted);
  if (format.scale != 1)
    return stored.to(wanted, /*non_blocking=*/false, /*copy=*/true).mul_(format.scale);
  return stored.to(wanted);
}

}  // namespace

int64_t Param::elements() const {
  int64_t n = 1;
  for (int64_t dim : shape) n *= dim;
  return n;
}

WeightLease::WeightLease(at::Tensor weight, at::Tensor bias, TransferMeter* meter, int device,
                         int64_t staged_bytes)
    : weight_(std::move(weight)),
      bias_(std::move(bias)),
      meter_(meter),
      device_(device),
      staged_bytes_(staged_bytes) {
  if (staged_bytes_ > 0) meter_->AddStaging(device_, staged_bytes_);
}

WeightLease::WeightLease(WeightLease&& other) noexcept
    : weight_(std::move(other.weight_)),
      bias_(std::move(other.bias_)),
      meter_(other.meter_),
      device_(other.device_),
      staged_bytes_(std::exchange(other.staged_bytes_, 0)) {}

WeightLease::~WeightLease() {
  if (staged_bytes_ > 0) meter_->AddStaging(device_, -staged_bytes_);
}

WeightSlot::WeightSlot(std::string name, bool has_bias_member, std::vector<Param> params)
    : name_(std::move(name)),
      has_bias_member_(has_bias_member),
      params_(std::move(params)),
      patches_(params_.size()) {}

int64_t WeightSlot::file_bytes() const {
  int64_t bytes = 0;
  for (const Param& param : params_) bytes += param.file_bytes();
  return bytes;
}

int64_t WeightSlot::stored_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : stored_) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

void WeightSlot::Fill(std::vector<at::Tensor> tensors, std::vector<StorageFormat> formats,
                      TransferMeter* meter) {
  TORCH_CHECK(tensors.size() == params_.size() && formats.size() == params_.size(), name_,
              ": filled with ", tensors.size(), " tensors, not ", params_.size());
  stored_ = std::move(tensors);
  formats_ = std::move(formats);
  meter_ = meter;
}

void WeightSlot::Share(const WeightSlot& base) {
  Fill(base.stored_, base.formats_, base.meter_);
  patches_ = base.patches_;
}

void WeightSlot::AddPatch(size_t param, std::shared_ptr<const WeightPatch> patch) {
  patches_[param].list.push_back(std::move(patch));
}

void WeightSlot::set_rounding(size_t param, std::shared_ptr<const WeightPatch> rounding) {
  patches_[param].rounding = std::move(rounding);
}

at::Tensor WeightSlot::ApplyPatches(const Patches& patches, at::Tensor parameter) {
  for (const auto& patch : patches.list) parameter = patch->Apply(std::move(parameter));
  if (patches.rounding != nullptr) parameter = patches.rounding->Apply(std::move(parameter));
  return parameter;
}

void WeightSlot::Clear() { stored_.clear(); }

WeightLease WeightSlot::Acquire(const at::Device& device, at::ScalarType dtype) const {
  TORCH_CHECK(filled(), name_, " has no weights yet");
  const int to = MeterIndex(*meter_, device);
  at::Tensor ready[2];
  int64_t staged = 0;
  for (size_t i = 0; i < stored_.size(); ++i) {
    at::Tensor tensor = stored_[i];
    if (tensor.device() != device) {
      const auto start = std::chrono::steady_clock::now();
      const int from = MeterIndex(*meter_, tensor.device());
      tensor = tensor.to(device);
      meter_->AddTransfer(from, to, static_cast<int64_t>(tensor.nbytes()), NanosecondsSince(start));
    }
    const bool patched = !patches_[i].list.empty();
    const at::ScalarType wanted = patched ? at::kFloat : dtype;
    tensor = Decode(std::move(tensor), formats_[i], params_[i].shape, wanted);
    if (patched) {
      if (tensor.is_same(stored_[i])) tensor = tensor.clone();
      tensor = ApplyPatches(patches_[i], std::move(tensor)).to(dtype);
    }
    if (!tensor.is_same(stored_[i])) staged += static_cast<int64_t>(tensor.nbytes());
    ready[i] = std::move(tensor);
  }
  return WeightLease(std::move(ready[0]), std::move(ready[1]), meter_, to, staged);
}

}  // namespace distorch
