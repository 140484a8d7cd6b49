#include "tests/lib/models/skeleton_of.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/match.h"
#include "lib/base/status_macros.h"

namespace distorch {

absl::StatusOr<WrittenSkeleton> SkeletonOf(const TempFolder& folder,
                                           const std::vector<SafetensorsEntry>& entries) {
  const std::string path = folder.File("model.safetensors");
  RETURN_IF_ERROR(WriteSafetensors(path, entries));
  WrittenSkeleton written;
  ASSIGN_OR_RETURN(written.file, CheckpointFile::Open(path));
  ASSIGN_OR_RETURN(written.skeleton, models::BuildSkeleton(*written.file));
  return written;
}

void FillAtRandom(nn::Component* component, TransferMeter* meter) {
  at::manual_seed(1);
  for (const auto* slots : {&component->store().slots(), &component->store().buffers()}) {
    for (const auto& slot : *slots) {
      std::vector<at::Tensor> tensors;
      for (const Param& param : slot->params())
        tensors.push_back(at::randn(param.shape, at::kFloat).mul_(0.05));
      const size_t count = tensors.size();
      slot->Fill(std::move(tensors), std::vector<StorageFormat>(count), meter);
    }
  }
  component->set_compute({});
}

std::vector<SafetensorsEntry> Without(std::vector<SafetensorsEntry> entries,
                                      const std::string& part) {
  std::erase_if(entries,
                [&](const SafetensorsEntry& entry) { return absl::StrContains(entry.name, part); });
  return entries;
}

}  // namespace distorch
