// From a client's fields to everything a load will do, decided before a byte of weights is read.
#ifndef LIB_SERVING_LOAD_PLAN_H_
#define LIB_SERVING_LOAD_PLAN_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/placement.h"
#include "lib/models/family.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/load_spec.h"
#include "lib/serving/registry.h"
#include "lib/serving/split.h"

namespace distorch {

struct ComponentLoadPlan {
  ComponentKind kind = ComponentKind::kModel;
  std::unique_ptr<nn::Component> component;  // a skeleton; set_compute is done
  std::vector<SlotTarget> targets;           // into its store
  ComponentPlacement placement;              // planned bytes, with blocks
  BytesByDevice need;                        // of memory: what stays on disk needs none
  // Where the component's units run, parallel to its store's; nullopt: where it computes.
  std::vector<std::optional<c10::Device>> unit_devices;
  LoaderFields fields;
  // What, beside the checkpoint's content, makes this component what it is: part of its handle.
  std::string identity;
  // As LoadedComponent's.
  std::string request;
  StepPlacement step;
  double predicted_step_seconds = 0;
};

struct LoadPlan {
  std::string ckpt_name, family;
  LoadSpec spec;            // with the execution that it takes
  std::string fingerprint;  // of the file's content; its loader fills it in
  bool high_precision_loras = true;
  std::shared_ptr<const CheckpointFile> file;
  std::vector<ComponentLoadPlan> components;  // those the file has: unet, clip, vae

  BytesByDevice need() const;
};

// `status` as an error of what lies under `ckpt_name`.
absl::Status InCheckpoint(const std::string& ckpt_name, const absl::Status& status);

// The steps, each timed by the caller. Each checks what it uses of `spec`; INVALID_ARGUMENT names
// the field.
absl::StatusOr<std::shared_ptr<const CheckpointFile>> OpenCheckpoint(const ModelFolders& folders,
                                                                     const std::string& ckpt_name);
// `context` has the execution of specs without one, and all that is free for the load.
absl::StatusOr<LoadPlan> MakeLoadPlan(const LoadSpec& spec,
                                      std::shared_ptr<const CheckpointFile> file,
                                      models::Skeleton skeleton, SplitContext context);

}  // namespace distorch

#endif  // LIB_SERVING_LOAD_PLAN_H_
