// Under which names adapters know a component's parameters.
#ifndef LIB_LORA_TARGET_NAMES_H_
#define LIB_LORA_TARGET_NAMES_H_

#include <string>
#include <vector>

#include "lib/distorch/weight_store.h"
#include "lib/lora/adapter_patch.h"

namespace distorch::lora {

// A module as adapters see it: the weight and bias of a slot, or of some of its rows.
struct Target {
  WeightSlot* slot = nullptr;
  size_t param = 0;  // the parameter that a change of "the weight" means
  Rows rows;
};

struct TargetName {
  std::string name;
  Target target;
};

// The names that kohya's trainers ("lora_unet_input_blocks_1_1_proj_in", also with diffusers'
// blocks, "lora_te1_text_model_encoder_layers_0_mlp_fc1"), LyCORIS, diffusers and PEFT ("unet.…",
// "transformer.…", "text_encoder_2.…", attention processors), OneTrainer and SimpleTuner
// ("lora_transformer_…", "lycoris_…") and those who keep the reference's names give to the modules
// of a diffusion network or of the text encoders in `store`. Where an adapter has two of a target's
// names, the later one counts, as in the reference.
std::vector<TargetName> TargetNames(const WeightStore& store);

}  // namespace distorch::lora

#endif  // LIB_LORA_TARGET_NAMES_H_
