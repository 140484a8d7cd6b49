#include "lib/distorch/weight_store.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/torch_dtype.h"
#include "lib/distorch/streamer.h"

namespace distorch {
namespace {

constexpr size_t kProblemsShown = 5;

// Whether the tensor's pieces begin and end where blocks do.
bool PiecesAreWholeBlocks(const NamedTensor& tensor) {
  const auto block = static_cast<int64_t>(BlockOf(tensor.dtype).elements);
  return std::all_of(tensor.pieces.begin(), tensor.pieces.end(), [&](const TensorPiece& piece) {
    if (piece.tensor->shape.empty()) return false;
    const int64_t rows = piece.tensor->shape[0];
    const int64_t row = rows == 0 ? 0 : piece.tensor->elements() / rows;
    return piece.first_row * row % block == 0 && piece.rows * row % block == 0;
  });
}

}  // namespace

WeightStore::WeightStore(const NamedTensors* tensors) : tensors_(tensors) {}

WeightStore::~WeightStore() = default;

Param WeightStore::Declare(const std::string& tensor_name, const std::vector<int64_t>& shape,
                           IfMissing if_missing) {
  Param param;
  param.shape = shape;
  auto found = tensors_->find(tensor_name);
  if (found == tensors_->end()) {
    if (if_missing == IfMissing::kError)
      problems_.push_back(absl::StrCat(tensor_name, " is missing"));
    return param;
  }
  param.source = found->second;
  param.file_dtype = param.source->dtype;
  Judge(tensor_name, param);
  return param;
}

void WeightStore::Judge(const std::string& tensor_name, const Param& param) {
  const NamedTensor& source = *param.source;
  const auto problem = [&](const std::string& what) {
    problems_.push_back(absl::StrCat(tensor_name, " ", what));
  };
  if (source.shape != param.shape) {
    problem(absl::StrCat("has shape ", ShapeString(source.shape), ", expected ",
                         ShapeString(param.shape)));
  } else if (IsQuantized(source.dtype)) {
    if (source.transposed || !PiecesAreWholeBlocks(source)) {
      problem(absl::StrCat("is quantized as ", DTypeName(source.dtype),
                           " and cannot be cut or transposed"));
    }
  } else if (!IsFloating(source.dtype)) {
    problem(
        absl::StrCat("has dtype ", DTypeName(source.dtype), ", expected a floating-point type"));
  }
}

const TensorInfo* WeightStore::FindScale(const std::string& name) {
  const auto found = tensors_->find(absl::StrCat(name, ".scale_weight"));
  if (found == tensors_->end()) return nullptr;
  const NamedTensor& scale = found->second;
  if (scale.pieces.size() == 1 && scale.pieces[0].tensor->elements() == 1 &&
      IsFloating(scale.dtype)) {
    return scale.pieces[0].tensor;
  }
  problems_.push_back(absl::StrCat(name, ".scale_weight is no single floating-point number"));
  return nullptr;
}

WeightSlot* WeightStore::Add(const std::string& name, const std::vector<int64_t>& weight_shape,
                             int64_t bias_size, IfMissing if_missing, bool has_bias_member,
                             std::string_view weight_name) {
  std::vector<Param> params;
  params.push_back(Declare(absl::StrCat(name, ".", weight_name), weight_shape, if_missing));
  params[0].scale = FindScale(name);
  // A synthesised parameter takes the type of what was declared before it, as it would have in the
  // file; it cannot be made in blocks.
  if (!params[0].source && !slots_.empty() && !slots_.back()->params().empty()) {
    const DType before = slots_.back()->params()[0].file_dtype;
    params[0].file_dtype = IsQuantized(before) ? DType::kF16 : before;
  }
  if (bias_size > 0)
    params.push_back(Declare(absl::StrCat(name, ".bias"), {bias_size}, if_missing));
  slots_.push_back(std::make_unique<WeightSlot>(name, has_bias_member, std::move(params)));
  return slots_.back().get();
}

void WeightStore::AddEmpty(const std::string& name) {
  slots_.push_back(
      std::make_unique<WeightSlot>(name, /*has_bias_member=*/true, std::vector<Param>()));
}

WeightSlot* WeightStore::AddBuffer(const std::string& name, const std::vector<int64_t>& shape) {
  buffers_.push_back(std::make_unique<WeightSlot>(
      name, /*has_bias_member=*/false, std::vector{Declare(name, shape, IfMissing::kError)}));
  return buffers_.back().get();
}

const ExecutionUnit* WeightStore::BeginUnit(const std::string& name) {
  ExecutionUnit unit;
  unit.name = name;
  unit.first_slot = unit.end_slot = slots_.size();
  units_.push_back(std::make_unique<ExecutionUnit>(std::move(unit)));
  return units_.back().get();
}

void WeightStore::EndUnit() { units_.back()->end_slot = slots_.size(); }

absl::Status WeightStore::status() const {
  if (problems_.empty()) return absl::OkStatus();
  const size_t shown = std::min(problems_.size(), kProblemsShown);
  std::string text = absl::StrJoin(problems_.begin(),
                                   problems_.begin() + static_cast<std::ptrdiff_t>(shown), "; ");
  if (problems_.size() > shown) absl::StrAppend(&text, "; and ", problems_.size() - shown, " more");
  return absl::InvalidArgumentError(text);
}

std::vector<Block> WeightStore::Blocks() const {
  std::vector<Block> blocks;
  blocks.reserve(slots_.size());
  for (const auto& slot : slots_)
    blocks.push_back({slot->name(), slot->file_bytes(), slot->has_bias_member()});
  return blocks;
}

BytesByDevice WeightStore::StoredBytes(const std::vector<DeviceId>& devices) const {
  BytesByDevice bytes;
  for (const auto* slots : {&slots_, &buffers_}) {
    for (const auto& slot : *slots) {
      for (const at::Tensor& tensor : slot->stored()) {
        const DeviceId& device =
            tensor.is_meta() ? kDisk : devices[DeviceIndex(tensor.device(), devices.size())];
        bytes[device] += static_cast<int64_t>(tensor.nbytes());
      }
    }
  }
  return bytes;
}

void WeightStore::PlaceUnits(std::span<const std::optional<at::Device>> devices,
                             TransferMeter* meter) {
  TORCH_CHECK(devices.size() == units_.size(), devices.size(), " devices for ", units_.size(),
              " units");
  for (size_t i = 0; i < devices.size(); ++i) {
    units_[i]->device = devices[i];
    units_[i]->meter = meter;
  }
}

absl::Status WeightStore::Share(const WeightStore& base) {
  if (units_.size() != base.units_.size()) return absl::InternalError("the skeletons differ");
  for (size_t i = 0; i < units_.size(); ++i) {
    units_[i]->device = base.units_[i]->device;
    units_[i]->meter = base.units_[i]->meter;
  }
  for (const auto& [mine, theirs] :
       {std::pair(&slots_, &base.slots_), std::pair(&buffers_, &base.buffers_)}) {
    if (mine->size() != theirs->size()) return absl::InternalError("the skeletons differ");
    for (size_t i = 0; i < mine->size(); ++i) {
      if ((*mine)[i]->name() != (*theirs)[i]->name())
        return absl::InternalError(absl::StrCat("the skeletons differ at ", (*mine)[i]->name()));
      (*mine)[i]->Share(*(*theirs)[i]);
    }
  }
  return absl::OkStatus();
}

void WeightStore::StreamTo(Streamer* streamer, const at::Device& compute) {
  std::vector<at::Device> runs_on(slots_.size(), compute);
  for (const auto& unit : units_) {
    for (size_t i = unit->first_slot; unit->device && i < unit->end_slot; ++i)
      runs_on[i] = *unit->device;
  }
  std::unordered_map<at::Device, int64_t> elsewhere;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const WeightSlot& slot = *slots_[i];
    if (slot.filled() && slot.device() != runs_on[i]) elsewhere[runs_on[i]] += slot.stored_bytes();
  }
  if (elsewhere.empty()) return;
  if (stream_ == nullptr) stream_ = streamer->Open();
  for (const auto& [device, bytes] : elsewhere) stream_->ComputeOn(device, bytes);
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i]->filled() || slots_[i]->device() == runs_on[i]) continue;
    slots_[i]->set_stream(stream_.get());
    if (compute.is_cuda()) stream_->Pin(slots_[i]->stored_weights());
  }
}

void WeightStore::Clear() {
  for (const auto* slots : {&slots_, &buffers_}) {
    for (const auto& slot : *slots) slot->set_stream(nullptr);
  }
  stream_.reset();
  for (const auto& slot : slots_) slot->Clear();
  for (const auto& buffer : buffers_) buffer->Clear();
}

}  // namespace distorch
