#include "lib/lora/adapter_file.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/utf8.h"

namespace distorch::lora {
namespace {

constexpr size_t kNamesShown = 3;

struct Ending {
  std::string_view text;
  Part part;
};

// No ending is the end of another, so that their order is only that of preference between two
// spellings of one part.
constexpr Ending kEndings[] = {
    {".lora_up.weight", Part::kUp},
    {".lora_down.weight", Part::kDown},
    {".lora_mid.weight", Part::kMid},
    {"_lora.up.weight", Part::kUp},
    {"_lora.down.weight", Part::kDown},
    {".lora_B.weight", Part::kUp},
    {".lora_A.weight", Part::kDown},
    {".lora.up.weight", Part::kUp},
    {".lora.down.weight", Part::kDown},
    {".lora_B", Part::kUp},
    {".lora_A", Part::kDown},
    {".lora_linear_layer.up.weight", Part::kUp},
    {".lora_linear_layer.down.weight", Part::kDown},
    {".lora_B.default.weight", Part::kUp},
    {".lora_A.default.weight", Part::kDown},
    {".reshape_weight", Part::kReshape},
    {".alpha", Part::kAlpha},
    {".dora_scale", Part::kDoraScale},
    {".hada_w1_a", Part::kLohaW1A},
    {".hada_w1_b", Part::kLohaW1B},
    {".hada_w2_a", Part::kLohaW2A},
    {".hada_w2_b", Part::kLohaW2B},
    {".hada_t1", Part::kLohaT1},
    {".hada_t2", Part::kLohaT2},
    {".lokr_w1", Part::kLokrW1},
    {".lokr_w1_a", Part::kLokrW1A},
    {".lokr_w1_b", Part::kLokrW1B},
    {".lokr_w2", Part::kLokrW2},
    {".lokr_w2_a", Part::kLokrW2A},
    {".lokr_w2_b", Part::kLokrW2B},
    {".lokr_t2", Part::kLokrT2},
    {".a1.weight", Part::kGloraA1},
    {".a2.weight", Part::kGloraA2},
    {".b1.weight", Part::kGloraB1},
    {".b2.weight", Part::kGloraB2},
    {".diff", Part::kDiff},
    {".diff_b", Part::kDiffBias},
    {".w_norm", Part::kDiff},
    {".b_norm", Part::kDiffBias},
    {".set_weight", Part::kSet},
};

const Ending* FindEnding(std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kEndings), std::end(kEndings), [name](const Ending& ending) {
        return name.size() > ending.text.size() && absl::EndsWith(name, ending.text);
      });
  return found == std::end(kEndings) ? nullptr : found;
}

}  // namespace

bool ModuleTensors::Set(Part part, const TensorInfo* tensor) {
  const TensorInfo*& place = tensors_[static_cast<size_t>(part)];
  if (place != nullptr) return false;
  place = tensor;
  return true;
}

absl::StatusOr<AdapterModules> ReadAdapterModules(const TensorIndex& index) {
  AdapterModules modules;
  for (const TensorInfo& tensor : index.tensors()) {
    const std::string_view name = tensor.name;
    const Ending* const ending = FindEnding(name);
    if (ending == nullptr) {
      modules.unknown.push_back(&tensor);
      continue;
    }
    const std::string_view module = name.substr(0, name.size() - ending->text.size());
    if (!modules.by_name[module].Set(ending->part, &tensor)) modules.unknown.push_back(&tensor);
  }
  if (!modules.by_name.empty()) return modules;

  std::vector<std::string> names;
  for (const TensorInfo& tensor : index.tensors()) {
    if (names.size() == kNamesShown) break;
    names.push_back(Quoted(tensor.name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("it is not an adapter (LoRA, LoCon, LoHa, LoKr, GLoRA or full differences): ",
                   index.tensors().empty()
                       ? "it has no tensors"
                       : absl::StrCat("none of its ", index.tensors().size(),
                                      " tensors has a name that one would have; the first are ",
                                      absl::StrJoin(names, ", "))));
}

}  // namespace distorch::lora
