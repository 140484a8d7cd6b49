#include "lib/models/diffusers_names.h"

#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/models/diffusers_tables.h"

namespace distorch::models {
namespace {

constexpr std::string_view kRoot = "diffusion_model.";

using diffusers::Joined;
using diffusers::Renamed;

// Gathers names; every Add of a module that the network lacks does nothing.
class Namer {
 public:
  explicit Namer(const WeightStore& store) {
    for (const auto& slot : store.slots()) {
      if (absl::StartsWith(slot->name(), kRoot))
        modules_.emplace(slot->name().substr(kRoot.size()), slot.get());
    }
  }

  const WeightSlot* Find(const std::string& native) const {
    auto found = modules_.find(native);
    return found == modules_.end() ? nullptr : found->second;
  }
  // Whether some module lies under "native.".
  bool HasBlock(const std::string& native) const {
    auto found = modules_.lower_bound(native + ".");
    return found != modules_.end() && absl::StartsWith(found->first, native + ".");
  }

  void Add(const std::string& native, std::string diffusers, bool swapped_halves = false) {
    if (const WeightSlot* module = Find(native)) {
      DiffusersName name{std::move(diffusers), module};
      name.swapped_halves = swapped_halves;
      names_.push_back(std::move(name));
    }
  }
  // Those of `renamed` under "native" ("" for the root), as "diffusers…". `also_swapped`: of one
  // whose halves are swapped here.
  void AddRenamed(const std::string& native, const std::string& diffusers,
                  std::span<const Renamed> renamed, std::string_view also_swapped = "") {
    for (const Renamed& child : renamed) {
      Add(absl::StrCat(native, child.native), absl::StrCat(diffusers, child.diffusers),
          child.swapped_halves || child.diffusers == also_swapped);
    }
  }
  // All under "native.", as "diffusers.…" with the same names.
  void AddAll(const std::string& native, const std::string& diffusers) {
    const std::string prefix = native + ".";
    for (auto it = modules_.lower_bound(prefix);
         it != modules_.end() && absl::StartsWith(it->first, prefix); ++it) {
      names_.push_back({absl::StrCat(diffusers, ".", it->first.substr(prefix.size())), it->second});
    }
  }
  // The parts of fused matrices, of `rows` each.
  void AddJoined(const std::string& native, const std::string& diffusers, int64_t rows,
                 std::span<const Joined> joined) {
    for (const Joined& part : joined) {
      const WeightSlot* const module = Find(absl::StrCat(native, part.native));
      if (module == nullptr) continue;
      const int64_t first = part.part * rows;
      names_.push_back({absl::StrCat(diffusers, part.diffusers), module, first,
                        part.takes_rest ? Rows(*module) - first : rows});
    }
  }

  static int64_t Rows(const WeightSlot& module) { return module.params()[0].shape[0]; }
  std::vector<DiffusersName> Take() { return std::move(names_); }

 private:
  std::map<std::string, const WeightSlot*> modules_;
  std::vector<DiffusersName> names_;
};

void AddUNetBlock(Namer& namer, const std::string& native, const std::string& level, int index) {
  namer.AddRenamed(native + ".0.", absl::StrCat(level, ".resnets.", index, "."),
                   diffusers::kUNetResnetNames);
  if (namer.Find(native + ".1.proj_in") != nullptr)
    namer.AddAll(native + ".1", absl::StrCat(level, ".attentions.", index));
}

void NameUNet(Namer& namer) {
  namer.AddRenamed("", "", diffusers::kUNetNames);
  // A level ends with its downsampling, which is a block of its own, …
  for (int block = 1, level = 0, index = 0;; ++block) {
    const std::string native = absl::StrCat("input_blocks.", block);
    if (!namer.HasBlock(native)) break;
    const std::string diffusers = absl::StrCat("down_blocks.", level);
    if (namer.Find(native + ".0.op") != nullptr) {
      namer.Add(native + ".0.op", diffusers + ".downsamplers.0.conv");
      ++level;
      index = 0;
    } else {
      AddUNetBlock(namer, native, diffusers, index++);
    }
  }
  namer.AddRenamed("middle_block.0.", "mid_block.resnets.0.", diffusers::kUNetResnetNames);
  namer.AddAll("middle_block.1", "mid_block.attentions.0");
  namer.AddRenamed("middle_block.2.", "mid_block.resnets.1.", diffusers::kUNetResnetNames);
  // … or with its upsampling, which is the last part of a block.
  for (int block = 0, level = 0, index = 0;; ++block) {
    const std::string native = absl::StrCat("output_blocks.", block);
    if (!namer.HasBlock(native)) break;
    const std::string diffusers = absl::StrCat("up_blocks.", level);
    AddUNetBlock(namer, native, diffusers, index++);
    for (const char* const conv : {".1.conv", ".2.conv"}) {
      if (namer.Find(native + conv) == nullptr) continue;
      namer.Add(native + conv, diffusers + ".upsamplers.0.conv");
      ++level;
      index = 0;
    }
  }
}

void NameMMDiT(Namer& namer) {
  namer.AddRenamed("", "", diffusers::kMMDiTNames);
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("joint_blocks.", i, ".");
    const std::string block = absl::StrCat("transformer_blocks.", i, ".");
    const WeightSlot* const qkv = namer.Find(native + "x_block.attn.qkv");
    if (qkv == nullptr) break;
    namer.AddJoined(native, block, Namer::Rows(*qkv) / 3, diffusers::kMMDiTJoined);
    const bool last = !namer.HasBlock(absl::StrCat("joint_blocks.", i + 1));
    namer.AddRenamed(native, block, diffusers::kMMDiTBlockNames,
                     last ? diffusers::kMMDiTContextModulation : "");
  }
}

void NameFlux(Namer& namer) {
  namer.AddRenamed("", "", diffusers::kFluxNames);
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("double_blocks.", i, ".");
    const std::string block = absl::StrCat("transformer_blocks.", i, ".");
    const WeightSlot* const qkv = namer.Find(native + "img_attn.qkv");
    if (qkv == nullptr) break;
    namer.AddJoined(native, block, Namer::Rows(*qkv) / 3, diffusers::kFluxDoubleJoined);
    namer.AddRenamed(native, block, diffusers::kFluxDoubleNames);
  }
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("single_blocks.", i, ".");
    const std::string block = absl::StrCat("single_transformer_blocks.", i, ".");
    const WeightSlot* const out = namer.Find(native + "linear2");
    if (out == nullptr) break;
    namer.AddJoined(native, block, Namer::Rows(*out), diffusers::kFluxSingleJoined);
    namer.AddRenamed(native, block, diffusers::kFluxSingleNames);
  }
}

}  // namespace

std::vector<DiffusersName> DiffusersNames(const WeightStore& store) {
  Namer namer(store);
  if (namer.HasBlock("input_blocks")) NameUNet(namer);
  if (namer.HasBlock("joint_blocks")) NameMMDiT(namer);
  if (namer.HasBlock("double_blocks")) NameFlux(namer);
  return namer.Take();
}

}  // namespace distorch::models
