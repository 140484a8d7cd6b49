#include "lib/distorch/weight_slot.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "lib/checkpoint/dequantize.h"
#include "lib/distorch/streamer.h"

namespace distorch {
namespace {

int64_t NanosecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() -
                                                              start)
      .count();
}

// What is stored as values in `wanted`; the same tensor when that is how they are stored.
at::Tensor Decode(const at::Tensor& stored, const StorageFormat& format,
                  const std::vector<int64_t>& shape, at::ScalarType wanted) {
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
                         int64_t staged_bytes, StagingHold hold)
    : hold_(std::move(hold)),
      weight_(std::move(weight)),
      bias_(std::move(bias)),
      meter_(meter),
      device_(device),
      staged_bytes_(staged_bytes) {
  if (staged_bytes_ > 0) meter_->AddStaging(device_, staged_bytes_);
}

WeightLease::WeightLease(WeightLease&& other) noexcept
    : hold_(std::move(other.hold_)),
      weight_(std::move(other.weight_)),
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

void WeightSlot::Fill(std::vector<at::Tensor> tensors, std::vector<StorageFormat> formats,
                      TransferMeter* meter, std::shared_ptr<const WeightSource> source) {
  TORCH_CHECK(tensors.size() == params_.size() && formats.size() == params_.size(), name_,
              ": filled with ", tensors.size(), " tensors, not ", params_.size());
  absl::MutexLock lock(&mutex_);
  stored_ = {std::move(tensors), std::move(source)};
  may_pack_ = true;
  formats_ = std::move(formats);
  meter_ = meter;
}

void WeightSlot::Share(const WeightSlot& base) {
  StoredWeights stored;
  {
    absl::MutexLock lock(&base.mutex_);
    base.may_pack_ = false;
    stored = base.stored_;
  }
  Fill(std::move(stored.tensors), base.formats_, base.meter_, std::move(stored.source));
  absl::MutexLock lock(&mutex_);
  may_pack_ = false;
  patches_ = base.patches_;
}

void WeightSlot::set_stream(const WeightStream* stream) {
  stream_ = stream;
  if (stream == nullptr) return;
  absl::MutexLock lock(&mutex_);
  may_pack_ = false;
  for (at::Tensor& tensor : stored_.tensors) {
    if (tensor.is_mkldnn()) tensor = tensor.to_dense();
  }
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

void WeightSlot::Clear() {
  absl::MutexLock lock(&mutex_);
  stored_ = {};
}

StagedWeights WeightSlot::Bring(const at::Device& device) const {
  if (stream_ != nullptr) return stream_->Bring(stored_, device);
  const auto start = std::chrono::steady_clock::now();
  StagedWeights staged{EmptyLike(stored_, device), {}};
  CopyWeights(stored_, staged.tensors, {});
  const int from =
      stored_.on_disk() ? meter_->IndexOf(kDisk) : MeterIndex(*meter_, stored_.device());
  meter_->AddTransfer(from, MeterIndex(*meter_, device), stored_.bytes(), NanosecondsSince(start));
  return staged;
}

at::Tensor WeightSlot::Prepare(size_t i, const at::Tensor& raw, bool shared,
                               at::ScalarType dtype) const {
  const bool patched = !patches_[i].list.empty();
  if (raw.is_mkldnn() && (patched || dtype != raw.scalar_type()))
    return Prepare(i, raw.to_dense(), /*shared=*/false, dtype);
  at::Tensor tensor = Decode(raw, formats_[i], params_[i].shape, patched ? at::kFloat : dtype);
  if (!patched) return tensor;
  if (shared && tensor.is_same(raw)) tensor = tensor.clone();
  return ApplyPatches(patches_[i], std::move(tensor)).to(dtype);
}

WeightLease WeightSlot::AcquirePacked(const at::Tensor& activations, WeightPacker pack) const {
  {
    absl::MutexLock lock(&mutex_);
    if (may_pack_ && !stored_.tensors.empty() && stored_.tensors[0].is_cpu() &&
        activations.is_cpu() && stored_.tensors[0].scalar_type() == activations.scalar_type() &&
        !stored_.tensors[0].is_mkldnn() && patches_[0].list.empty() && formats_[0].scale == 1) {
      const at::Tensor packed = pack(stored_.tensors[0]);
      may_pack_ = packed.defined();
      if (packed.defined()) stored_.tensors[0] = packed;
    }
  }
  return Acquire(activations);
}

WeightLease WeightSlot::Acquire(const at::Device& device, at::ScalarType dtype) const {
  const std::vector<at::Tensor> stored = this->stored();
  TORCH_CHECK(!stored.empty(), name_, " has no weights yet");
  const bool resident = stored.front().device() == device;
  StagedWeights staged;
  if (!resident) staged = Bring(device);
  const std::vector<at::Tensor>& raw = resident ? stored : staged.tensors;
  at::Tensor ready[2];
  int64_t staged_bytes = 0;
  bool in_ring = false;
  for (size_t i = 0; i < raw.size(); ++i) {
    ready[i] = Prepare(i, raw[i], resident, dtype);
    const bool as_stored =
        ready[i].is_same(raw[i]) || (!raw[i].is_mkldnn() && ready[i].is_alias_of(raw[i]));
    if (!as_stored || !(resident || staged.hold)) {
      staged_bytes += static_cast<int64_t>(ready[i].nbytes());
    } else {
      in_ring = in_ring || !resident;
    }
  }
  // Converted ones need the ring's bytes no longer.
  if (!in_ring) staged.hold = {};
  return WeightLease(std::move(ready[0]), std::move(ready[1]), meter_, MeterIndex(*meter_, device),
                     staged_bytes, std::move(staged.hold));
}

}  // namespace distorch
