#include "lib/models/family.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/models/families/flux.h"
#include "lib/models/families/sd1.h"
#include "lib/models/families/sd2.h"
#include "lib/models/families/sd3.h"
#include "lib/models/families/sdxl.h"

namespace distorch::models {
namespace {

constexpr std::string_view kUNetsKnown =
    "4 input channels, 9 (inpainting) or 8 (instruct-pix2pix), and the attention and class "
    "embedding of SD1, SD2 or SDXL";

bool LooksLikeAdapter(const TensorIndex& index) {
  return std::any_of(index.tensors().begin(), index.tensors().end(), [](const TensorInfo& tensor) {
    return absl::StrContains(tensor.name, ".lora_up.") ||
           absl::StrContains(tensor.name, ".lora_down.") ||
           absl::StrContains(tensor.name, ".lora_A.") ||
           absl::StrContains(tensor.name, ".lora_B.") || absl::StrContains(tensor.name, ".lokr_") ||
           absl::StrContains(tensor.name, ".hada_");
  });
}

// The first one or two parts of the names, each once: enough to recognise a layout by.
std::string Summary(const TensorIndex& index) {
  constexpr size_t kShown = 6, kPartLength = 40;
  std::set<std::string> parts;
  for (const TensorInfo& tensor : index.tensors()) {
    const size_t dot = tensor.name.find('.');
    parts.insert(tensor.name.substr(0, std::min(dot, kPartLength)));
    if (parts.size() > kShown) break;
  }
  std::vector<std::string> shown(parts.begin(), parts.end());
  if (shown.size() > kShown) shown.back() = "…";
  return absl::StrCat(index.tensors().size(), " tensors named ", absl::StrJoin(shown, ", "));
}

std::string KnownFamilies() {
  return absl::StrCat("known families: ",
                      absl::StrJoin(Families(), ", ", [](std::string* out, const ModelFamily* f) {
                        out->append(f->name);
                      }));
}

// A latent-diffusion UNet's first convolution, in a checkpoint or a file of the UNet alone; null
// when there is none.
const TensorInfo* UNetInput(const TensorIndex& index) {
  constexpr std::string_view kName = "input_blocks.0.0.weight";
  const TensorInfo* conv = index.Find(absl::StrCat(kDiffusionModelKeys.from, kName));
  return conv != nullptr ? conv : index.Find(kName);
}

absl::Status UnknownLayout(const TensorIndex& index) {
  if (index.tensors().empty()) return absl::InvalidArgumentError("the file holds no tensors");
  if (LooksLikeAdapter(index)) {
    return absl::InvalidArgumentError(
        "this is a LoRA adapter, not a checkpoint: load a checkpoint and apply the adapter to it");
  }
  if (const TensorInfo* conv = UNetInput(index); conv != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("an unknown kind of UNet: ", conv->name, " has shape ",
                     ShapeString(conv->shape), ", expected ", kUNetsKnown, "; ", KnownFamilies()));
  }
  if (index.HasPrefix("model.diffusion_model.")) {
    return absl::InvalidArgumentError(absl::StrCat("an unknown kind of diffusion model (",
                                                   Summary(index), "); ", KnownFamilies()));
  }
  if (index.HasPrefix("encoder.conv_in.") || index.HasPrefix("first_stage_model.")) {
    return absl::InvalidArgumentError(
        "this is a VAE alone, not a checkpoint: it has no model.diffusion_model.* tensors");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("not a diffusion checkpoint: it has no model.diffusion_model.* tensors, but ",
                   Summary(index)));
}

// A component's skeleton is judged as soon as it is built.
template <typename T>
absl::Status Judge(const absl::StatusOr<std::unique_ptr<T>>& built) {
  RETURN_IF_ERROR(built.status());
  return *built == nullptr ? absl::OkStatus() : (*built)->store().status();
}

}  // namespace

std::span<const ModelFamily* const> Families() {
  static const ModelFamily* const kFamilies[] = {
      &Sd1InpaintFamily(),  &Sd1InstructFamily(),  &Sd1Family(),     &Sd2InpaintFamily(),
      &Sd2UnclipFamily(),   &Sd2VFamily(),         &Sd2Family(),     &SdxlRefinerFamily(),
      &SdxlInpaintFamily(), &SdxlInstructFamily(), &SdxlEdmFamily(), &SdxlVFamily(),
      &SdxlFamily(),        &Sd35Family(),         &Sd3Family(),     &FluxFamily(),
      &FluxSchnellFamily(),
  };
  return kFamilies;
}

bool HasPrefix(const NamedTensors& tensors, std::string_view prefix) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const auto& entry) { return absl::StartsWith(entry.first, prefix); });
}

absl::StatusOr<Detection> DetectFamily(const CheckpointFile& file) {
  TensorReader values(&file);
  Detection detection;
  std::span<const KeyRule> mapped;
  for (const ModelFamily* family : Families()) {
    // Neighbours in the table that share their keys share the mapping.
    if (family->keys.data() != mapped.data()) {
      mapped = family->keys;
      detection.tensors = MapKeys(file.index(), mapped);
    }
    const bool matches = family->matches(detection.tensors, values);
    RETURN_IF_ERROR(values.status());
    if (!matches) continue;
    detection.family = family;
    return detection;
  }
  return UnknownLayout(file.index());
}

absl::StatusOr<Skeleton> BuildSkeleton(const CheckpointFile& file) {
  // Only construction reads the map; the slots point into the file's index itself.
  ASSIGN_OR_RETURN(const Detection detection, DetectFamily(file));
  const NamedTensors& tensors = detection.tensors;
  TensorReader values(&file);
  Skeleton skeleton;
  skeleton.family = detection.family;
  auto unet = skeleton.family->build_unet(tensors, values);
  RETURN_IF_ERROR(values.status());
  RETURN_IF_ERROR(Judge(unet));
  auto clip = skeleton.family->build_clip(tensors);
  RETURN_IF_ERROR(Judge(clip));
  auto vae = skeleton.family->build_vae(tensors);
  RETURN_IF_ERROR(Judge(vae));
  skeleton.unet = *std::move(unet);
  skeleton.clip = *std::move(clip);
  skeleton.vae = *std::move(vae);
  return skeleton;
}

}  // namespace distorch::models
