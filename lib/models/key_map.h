// From a file's tensor names to the reference's module names, which the rest of the program uses.
#ifndef LIB_MODELS_KEY_MAP_H_
#define LIB_MODELS_KEY_MAP_H_

#include <span>
#include <string_view>

#include "lib/checkpoint/tensor_index.h"
#include "lib/distorch/weight_store.h"

namespace distorch::models {

// Names that start with `from` start with `to` instead. The first rule that matches wins.
struct KeyRule {
  std::string_view from, to;
};

// The tensors of `index` that some rule matches, under their new names. Points into `index`.
NamedTensors MapKeys(const TensorIndex& index, std::span<const KeyRule> rules);

}  // namespace distorch::models

#endif  // LIB_MODELS_KEY_MAP_H_
