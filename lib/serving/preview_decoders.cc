#include "lib/serving/preview_decoders.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/cancellation.h"
#include "lib/base/status_macros.h"
#include "lib/distorch/placement.h"

namespace distorch {

PreviewDecoders::PreviewDecoders(std::vector<std::string> folders, TransferMeter* meter,
                                 Observer* observer)
    : folders_("preview decoder", std::move(folders)), meter_(meter), observer_(observer) {}

const nn::Taesd* PreviewDecoders::For(const models::LatentFormat& format) {
  if (format.taesd.empty() || folders_.roots().empty()) return nullptr;
  const std::vector<std::string> names = folders_.List();
  const auto name = std::find_if(names.begin(), names.end(), [&](const std::string& file) {
    return absl::StartsWith(file, format.taesd);
  });
  if (name == names.end()) return nullptr;
  absl::MutexLock lock(&mutex_);
  const auto [entry, is_new] = loaded_.try_emplace(*name);
  if (is_new) {
    absl::StatusOr<Decoder> decoder = Load(*name, format.channels);
    if (decoder.ok()) {
      entry->second = *std::move(decoder);
    } else {
      observer_->Warning(
          absl::StrCat("no previews with ", *name, ": ", decoder.status().message()));
    }
  }
  return entry->second.taesd.get();
}

absl::StatusOr<PreviewDecoders::Decoder> PreviewDecoders::Load(const std::string& name,
                                                               int64_t channels) const {
  ASSIGN_OR_RETURN(const std::string path, folders_.Resolve(name));
  Decoder decoder;
  ASSIGN_OR_RETURN(decoder.file, CheckpointFile::Open(path));
  NamedTensors tensors;
  for (const TensorInfo& tensor : decoder.file->index().tensors())
    tensors.emplace(tensor.name, NamedTensor(&tensor));
  decoder.taesd = std::make_unique<nn::Taesd>(&tensors, channels);
  RETURN_IF_ERROR(decoder.taesd->store().status());
  std::vector<SlotTarget> targets;
  for (const auto& slot : decoder.taesd->store().slots()) {
    targets.push_back({.slot = slot.get(),
                       .device = c10::Device(c10::kCPU),
                       .dtypes = std::vector(slot->params().size(), DType::kF32)});
  }
  RETURN_IF_ERROR(PlaceWeights(*decoder.file, targets, meter_, CancelToken(), [](int64_t) {}));
  return decoder;
}

}  // namespace distorch
