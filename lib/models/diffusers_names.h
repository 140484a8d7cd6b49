// What diffusers calls the modules of a diffusion network. The walk follows the network's own
// blocks, so that every depth and width, and whatever blocks a variant leaves out, falls out of it.
#ifndef LIB_MODELS_DIFFUSERS_NAMES_H_
#define LIB_MODELS_DIFFUSERS_NAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "lib/distorch/weight_store.h"

namespace distorch::models {

struct DiffusersName {
  std::string name;          // "down_blocks.0.attentions.0.proj_in"
  const WeightSlot* module;  // of the store
  // Where diffusers has a module of its own for some rows of a fused matrix: rows
  // [first_row, first_row + rows) of weight and bias. rows is 0 for the whole.
  int64_t first_row = 0, rows = 0;
  // Its first and second half of the rows are the module's second and first (the last modulation:
  // scale and shift).
  bool swapped_halves = false;
};

// The modules of a UNet, an MMDiT or a Flux network in `store`, whose slots have the reference's
// names ("diffusion_model.…"); empty for any other component. Modules that diffusers lacks are left
// out; one that it knows under two names is there twice. `store` must outlive the result.
std::vector<DiffusersName> DiffusersNames(const WeightStore& store);

}  // namespace distorch::models

#endif  // LIB_MODELS_DIFFUSERS_NAMES_H_
