#include "lib/serving/replicas.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/models/family.h"
#include "lib/serving/loader.h"
#include "lib/serving/registry.h"

namespace distorch {

absl::StatusOr<const models::DiffusionModel*> Replicas::On(const LoadedComponent& loaded,
                                                           const c10::Device& device,
                                                           Streamer* streamer,
                                                           const DeviceManager& devices) {
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<models::DiffusionModel>& replica =
      by_device_[device.is_cpu() ? c10::DeviceIndex{-1} : device.index()];
  if (replica != nullptr) return replica.get();
  ASSIGN_OR_RETURN(models::Skeleton skeleton, models::BuildSkeleton(*loaded.file));
  if (skeleton.unet == nullptr)
    return absl::InternalError(absl::StrCat(loaded.base_handle, " cannot be built again"));
  skeleton.unet->set_compute({device, loaded.component->compute().dtype});
  RETURN_IF_ERROR(skeleton.unet->store().Share(loaded.component->store()));
  skeleton.unet->store().StreamTo(streamer, device);
  streamer->FitRings(FreeBytes(devices));
  replica = std::move(skeleton.unet);
  return replica.get();
}

}  // namespace distorch
