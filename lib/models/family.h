// The table of model families: one definition a family, found from tensor names and shapes, and the
// values of a small tensor where these do not tell. README.md says how to add one.
#ifndef LIB_MODELS_FAMILY_H_
#define LIB_MODELS_FAMILY_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/models/diffusion_model.h"
#include "lib/models/key_map.h"
#include "lib/models/tensor_reader.h"
#include "lib/models/vae_model.h"
#include "lib/text/text_encoder.h"

namespace distorch::models {

// What sets a family apart. Adding one means adding one definition (lib/models/families/) and a
// line in Families().
struct ModelFamily {
  std::string_view name;  // "sd1", as clients see it
  // From the file's names to the reference's.
  std::span<const KeyRule> keys;
  // Whether a checkpoint, its keys mapped by `keys`, is of this family.
  bool (*matches)(const NamedTensors& tensors, TensorReader& values);
  // The components without weights. null for one that the file lacks. INVALID_ARGUMENT naming the
  // tensor that does not fit.
  absl::StatusOr<std::unique_ptr<DiffusionModel>> (*build_unet)(const NamedTensors& tensors,
                                                                TensorReader& values);
  absl::StatusOr<std::unique_ptr<text::TextEncoder>> (*build_clip)(const NamedTensors& tensors);
  absl::StatusOr<std::unique_ptr<VaeModel>> (*build_vae)(const NamedTensors& tensors);
  // A usual step, which predictions are of: a square picture of so many pixels a side, as it was
  // trained on, and the halves of classifier-free guidance (1: the model is guided otherwise).
  int64_t native_side = 1024, native_batch = 2;
};

// All families, the more specific before the more general.
std::span<const ModelFamily* const> Families();

// A checkpoint's family, and its tensors under that family's names.
struct Detection {
  const ModelFamily* family = nullptr;
  NamedTensors tensors;
};

// INVALID_ARGUMENT saying what was seen instead: a LoRA, a VAE alone, an unknown layout. Reads no
// more of the file than its header and what `matches` asks for.
absl::StatusOr<Detection> DetectFamily(const CheckpointFile& file);

// A checkpoint's components before any weight is loaded.
struct Skeleton {
  const ModelFamily* family = nullptr;
  std::unique_ptr<DiffusionModel> unet;
  std::unique_ptr<text::TextEncoder> clip;
  std::unique_ptr<VaeModel> vae;
};

// `file` must outlive the result.
absl::StatusOr<Skeleton> BuildSkeleton(const CheckpointFile& file);

// Shared by the definitions.
bool HasPrefix(const NamedTensors& tensors, std::string_view prefix);

}  // namespace distorch::models

#endif  // LIB_MODELS_FAMILY_H_
