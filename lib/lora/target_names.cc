#include "lib/lora/target_names.h"

#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/models/diffusers_names.h"

namespace distorch::lora {
namespace {

constexpr std::string_view kUNet = "diffusion_model.";

std::string Underscored(std::string_view name) { return absl::StrReplaceAll(name, {{".", "_"}}); }

class Names {
 public:
  explicit Names(const WeightStore& store) : store_(store) {
    for (const auto& slot : store.slots()) by_slot_[slot.get()] = slot.get();
  }

  void Add(std::string name, const Target& target) { names_.push_back({std::move(name), target}); }

  // The reference's names of a diffusion network.
  void AddNative() {
    for (const auto& slot : store_.slots()) {
      std::string_view module = slot->name();
      if (!absl::StartsWith(module, kUNet)) continue;
      module.remove_prefix(kUNet.size());
      Add(absl::StrCat("lora_unet_", Underscored(module)), {slot.get()});
      Add(slot->name(), {slot.get()});
      if (slot->params().size() > 1) Add(absl::StrCat(slot->name(), ".bias"), {slot.get(), 1});
      if (absl::StrContains(module, "single_blocks.") && absl::EndsWith(module, ".linear1"))
        AddAttentionOf(slot.get());
    }
  }

  // Flux's single blocks: the attention's rows of the first layer, by a name of their own.
  void AddAttentionOf(WeightSlot* linear1) {
    Target qkv{linear1};
    qkv.rows.count = 3 * linear1->params()[0].shape[1];
    Add(absl::StrCat(linear1->name(), "_qkv"), qkv);
  }

  void AddDiffusers() {
    for (const models::DiffusersName& module : models::DiffusersNames(store_)) {
      Target target{by_slot_.at(module.module)};
      target.rows = {module.first_row, module.rows, module.swapped_halves};
      const std::string underscored = Underscored(module.name);
      for (const char* const prefix : {"lora_unet_", "lycoris_", "lora_transformer_"})
        Add(absl::StrCat(prefix, underscored), target);
      // Attention processors once owned the projections, and to_out is a list of two.
      std::string processor = absl::StrReplaceAll(module.name, {{".to_", ".processor.to_"}});
      for (std::string name : {module.name, std::move(processor)}) {
        if (absl::EndsWith(name, ".processor.to_out.0")) name.resize(name.size() - 2);
        for (const char* const prefix : {"", "unet.", "transformer.", "base_model.model."})
          Add(absl::StrCat(prefix, name), target);
      }
    }
  }

  // All slots under `prefix`, as KOHYA_… and DIFFUSERS.…; an empty name is none.
  void AddEncoder(std::string_view prefix, const std::string& kohya, const std::string& diffusers) {
    for (const auto& slot : store_.slots()) {
      std::string_view module = slot->name();
      if (!absl::StartsWith(module, prefix)) continue;
      module.remove_prefix(prefix.size());
      if (!kohya.empty()) Add(absl::StrCat(kohya, "_", Underscored(module)), {slot.get()});
      if (!diffusers.empty()) Add(absl::StrCat(diffusers, ".", module), {slot.get()});
    }
  }

  bool Has(std::string_view prefix) const {
    for (const auto& slot : store_.slots()) {
      if (absl::StartsWith(slot->name(), prefix)) return true;
    }
    return false;
  }

  void AddText() {
    for (const auto& slot : store_.slots()) {
      if (!absl::StartsWith(slot->name(), kUNet))
        Add(absl::StrCat("text_encoders.", slot->name()), {slot.get()});
    }
    const bool has_l = Has(kClipL), has_g = Has(kClipG);
    for (std::string_view first : {kClipH, kClipL}) {
      AddEncoder(first, "lora_te", "text_encoder");
      AddEncoder(first, "lora_te1", "");
    }
    // Trainers number a checkpoint's encoders; the refiner's only one has no number.
    AddEncoder(kClipG, has_l ? "lora_te2" : "lora_te", has_l ? "text_encoder_2" : "text_encoder");
    const int t5 = 1 + (has_l ? 1 : 0) + (has_g ? 1 : 0);
    AddEncoder(kT5, absl::StrCat("lora_te", t5), absl::StrCat("text_encoder_", t5));
    // OneTrainer calls Flux's T5 the third encoder, too.
    if (t5 == 2) AddEncoder(kT5, "lora_te3", "");
  }

  std::vector<TargetName> Take() { return std::move(names_); }

 private:
  static constexpr std::string_view kClipL = "clip_l.transformer.";
  static constexpr std::string_view kClipG = "clip_g.transformer.";
  static constexpr std::string_view kClipH = "clip_h.transformer.";
  static constexpr std::string_view kT5 = "t5xxl.transformer.";

  const WeightStore& store_;
  std::map<const WeightSlot*, WeightSlot*> by_slot_;
  std::vector<TargetName> names_;
};

}  // namespace

std::vector<TargetName> TargetNames(const WeightStore& store) {
  Names names(store);
  names.AddNative();
  names.AddDiffusers();
  names.AddText();
  return names.Take();
}

}  // namespace distorch::lora
