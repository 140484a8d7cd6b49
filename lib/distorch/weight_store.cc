#include "lib/distorch/weight_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/torch_dtype.h"

namespace distorch {
namespace {

constexpr size_t kProblemsShown = 5;

}  // namespace

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
  if (param.source->shape != shape) {
    problems_.push_back(absl::StrCat(tensor_name, " has shape ", ShapeString(param.source->shape),
                                     ", expected ", ShapeString(shape)));
  } else if (!IsFloating(param.file_dtype)) {
    problems_.push_back(absl::StrCat(tensor_name, " has dtype ", DTypeName(param.file_dtype),
                                     ", expected a floating-point type"));
  }
  return param;
}

WeightSlot* WeightStore::Add(const std::string& name, const std::vector<int64_t>& weight_shape,
                             int64_t bias_size, IfMissing if_missing, bool has_bias_member,
                             std::string_view weight_name) {
  std::vector<Param> params;
  params.push_back(Declare(absl::StrCat(name, ".", weight_name), weight_shape, if_missing));
  // A synthesised parameter takes the type of what was declared before it, as it would have in the
  // file.
  if (!params[0].source && !slots_.empty() && !slots_.back()->params().empty())
    params[0].file_dtype = slots_.back()->params()[0].file_dtype;
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
        bytes[devices[DeviceIndex(tensor.device(), devices.size())]] +=
            static_cast<int64_t>(tensor.nbytes());
      }
    }
  }
  return bytes;
}

void WeightStore::Clear() {
  for (const auto& slot : slots_) slot->Clear();
  for (const auto& buffer : buffers_) buffer->Clear();
}

}  // namespace distorch
