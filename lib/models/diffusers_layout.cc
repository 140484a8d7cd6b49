#include "lib/models/diffusers_layout.h"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/models/diffusers_tables.h"

namespace distorch::models {
namespace {

using diffusers::Joined;
using diffusers::Renamed;

constexpr Renamed kVae[] = {
    {"conv_norm_out", "norm_out"},
    {"mid_block.resnets.0", "mid.block_1"},
    {"mid_block.attentions.0", "mid.attn_1"},
    {"mid_block.resnets.1", "mid.block_2"},
};
// Newer files have the UNet's names for the attention's parts.
constexpr Renamed kVaeAttention[] = {
    {"group_norm", "norm"},    {"to_q", "q"},  {"to_k", "k"}, {"to_v", "v"},
    {"to_out.0", "proj_out"},  {"query", "q"}, {"key", "k"},  {"value", "v"},
    {"proj_attn", "proj_out"},
};

bool Consume(std::string_view* text, std::string_view prefix) {
  if (!absl::StartsWith(*text, prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// "3." at the start.
std::optional<int> ConsumeIndex(std::string_view* text) {
  const size_t dot = text->find('.');
  int index = 0;
  if (dot == text->npos || dot > 4 || !absl::SimpleAtoi(text->substr(0, dot), &index) ||
      index < 0) {
    return std::nullopt;
  }
  text->remove_prefix(dot + 1);
  return index;
}

const Renamed* FindRenamed(std::span<const Renamed> table, std::string_view module) {
  for (const Renamed& entry : table) {
    if (entry.diffusers == module) return &entry;
  }
  return nullptr;
}

std::optional<std::string> Rename(std::span<const Renamed> table, std::string_view module) {
  const Renamed* const entry = FindRenamed(table, module);
  return entry == nullptr ? std::nullopt : std::optional<std::string>(entry->native);
}

// Gathers what the tensors become.
class Mapper {
 public:
  explicit Mapper(const TensorIndex& index) : index_(index) {}

  NamedTensors Map();

 private:
  // A tensor on its way: its module's name so far, and "weight" or "bias".
  struct Source {
    const TensorInfo* tensor;
    std::string_view module, parameter;
  };

  void MapUNet(const Source& source);
  void MapVae(const Source& source);
  void MapVaeSide(const Source& source, const std::string& side);
  void MapMMDiT(const Source& source);
  void MapFlux(const Source& source);

  void CountUNetBlocks();
  int VaeLevels() const;

  void Add(std::string_view root, std::string_view module, const Source& source) {
    named_.emplace(absl::StrCat(root, module, ".", source.parameter), NamedTensor(source.tensor));
  }
  // The halves of the rows in each other's place.
  void AddSwapped(std::string_view module, const Source& source);
  // A module that `table` renames, in the block; false when it is none.
  bool AddRenamed(std::span<const Renamed> table, const std::string& block, std::string_view module,
                  const Source& source, bool swapped = false);
  // Part of a matrix that Join puts together at the end; false when `module` is none.
  bool AddJoined(std::span<const Joined> table, const std::string& block, std::string_view module,
                 const Source& source);
  void Join();

  const TensorIndex& index_;
  NamedTensors named_;
  std::map<std::string, std::map<int, const TensorInfo*>> joined_;
  // Of the UNet: the first block of each level, and resnets a level.
  std::vector<int> down_start_, up_start_, up_resnets_;
  std::vector<bool> up_attends_;
};

constexpr std::string_view kModel = "diffusion_model.", kFirstStage = "first_stage_model.";

void Mapper::AddSwapped(std::string_view module, const Source& source) {
  NamedTensor tensor(source.tensor);
  if (tensor.shape.empty() || tensor.shape[0] % 2 != 0) return;  // is missing, then
  const int64_t half = tensor.shape[0] / 2;
  tensor.pieces = {{source.tensor, half, half}, {source.tensor, 0, half}};
  named_.emplace(absl::StrCat(kModel, module, ".", source.parameter), std::move(tensor));
}

bool Mapper::AddRenamed(std::span<const Renamed> table, const std::string& block,
                        std::string_view module, const Source& source, bool swapped) {
  const Renamed* const entry = FindRenamed(table, module);
  if (entry == nullptr) return false;
  const std::string native = absl::StrCat(block, entry->native);
  if (swapped || entry->swapped_halves) {
    AddSwapped(native, source);
  } else {
    Add(kModel, native, source);
  }
  return true;
}

bool Mapper::AddJoined(std::span<const Joined> table, const std::string& block,
                       std::string_view module, const Source& source) {
  for (const Joined& entry : table) {
    if (entry.diffusers != module) continue;
    joined_[absl::StrCat(kModel, block, entry.native, ".", source.parameter)][entry.part] =
        source.tensor;
    return true;
  }
  return false;
}

// What does not fit together is left out, and is reported as missing.
void Mapper::Join() {
  for (const auto& [name, parts] : joined_) {
    NamedTensor whole(parts.begin()->second);
    if (whole.shape.empty() || static_cast<size_t>(parts.rbegin()->first) + 1 != parts.size())
      continue;
    whole.shape[0] = 0;
    whole.pieces.clear();
    bool fits = true;
    for (const auto& [part, tensor] : parts) {
      NamedTensor piece(tensor);
      fits = fits && piece.shape.size() == whole.shape.size() && piece.dtype == whole.dtype &&
             std::equal(piece.shape.begin() + 1, piece.shape.end(), whole.shape.begin() + 1);
      if (!fits) break;
      whole.shape[0] += piece.shape[0];
      whole.pieces.push_back(piece.pieces[0]);
    }
    if (fits) named_.emplace(name, std::move(whole));
  }
}

// --- UNet: levels of resnets and attentions; the reference numbers all blocks in a row ---

void Mapper::CountUNetBlocks() {
  constexpr int kMaxLevels = 16, kMaxResnets = 16;
  const auto has = [&](std::string_view level, std::string_view what) {
    return index_.Find(absl::StrCat("unet.", level, what)) != nullptr;
  };
  const auto resnets = [&](const std::string& level) {
    int count = 0;
    while (count < kMaxResnets && has(level, absl::StrCat(".resnets.", count, ".conv1.weight")))
      ++count;
    return count;
  };
  for (int level = 0, block = 1; level < kMaxLevels; ++level) {
    const std::string name = absl::StrCat("down_blocks.", level);
    down_start_.push_back(block);
    block += resnets(name) + (has(name, ".downsamplers.0.conv.weight") ? 1 : 0);
  }
  for (int level = 0, block = 0; level < kMaxLevels; ++level) {
    const std::string name = absl::StrCat("up_blocks.", level);
    up_start_.push_back(block);
    up_resnets_.push_back(resnets(name));
    up_attends_.push_back(has(name, ".attentions.0.proj_in.weight"));
    block += up_resnets_.back();
  }
}

void Mapper::MapUNet(const Source& source) {
  std::string_view module = source.module;
  if (const auto renamed = Rename(diffusers::kUNetNames, module))
    return Add(kModel, *renamed, source);
  const bool down = Consume(&module, "down_blocks."), up = !down && Consume(&module, "up_blocks.");
  if (!down && !up) {
    if (!Consume(&module, "mid_block.")) return;
    if (Consume(&module, "attentions.0.")) {
      return Add(kModel, absl::StrCat("middle_block.1.", module), source);
    }
    const auto index = Consume(&module, "resnets.") ? ConsumeIndex(&module) : std::nullopt;
    if (const auto renamed = Rename(diffusers::kUNetResnetNames, module); index && renamed) {
      Add(kModel, absl::StrCat("middle_block.", 2 * *index, ".", *renamed), source);
    }
    return;
  }
  const auto level = ConsumeIndex(&module);
  const std::vector<int>& starts = down ? down_start_ : up_start_;
  if (!level || static_cast<size_t>(*level) >= starts.size()) return;
  const auto at = static_cast<size_t>(*level);
  const int start = starts[at];
  const std::string_view blocks = down ? "input_blocks." : "output_blocks.";
  if (down && module == "downsamplers.0.conv") {
    const int next = at + 1 < starts.size() ? starts[at + 1] : start;
    return Add(kModel, absl::StrCat(blocks, next - 1, ".0.op"), source);
  }
  if (up && module == "upsamplers.0.conv") {
    const int last = start + up_resnets_[at] - 1;
    return Add(kModel, absl::StrCat(blocks, last, up_attends_[at] ? ".2.conv" : ".1.conv"), source);
  }
  const bool attention = Consume(&module, "attentions.");
  if (!attention && !Consume(&module, "resnets.")) return;
  const auto index = ConsumeIndex(&module);
  if (!index) return;
  const auto renamed =
      attention ? std::optional(std::string(module)) : Rename(diffusers::kUNetResnetNames, module);
  if (renamed) {
    Add(kModel, absl::StrCat(blocks, start + *index, attention ? ".1." : ".0.", *renamed), source);
  }
}

// --- VAE ---

int Mapper::VaeLevels() const {
  int levels = 0;
  while (index_.Find(absl::StrCat("vae.decoder.up_blocks.", levels, ".resnets.0.conv1.weight")))
    ++levels;
  return levels;
}

void Mapper::MapVae(const Source& source) {
  std::string_view module = source.module;
  for (const std::string_view side : {"encoder.", "decoder."}) {
    if (Consume(&module, side)) {
      return MapVaeSide({source.tensor, module, source.parameter}, std::string(side));
    }
  }
  Add(kFirstStage, module, source);  // quant_conv, post_quant_conv
}

void Mapper::MapVaeSide(const Source& source, const std::string& side) {
  std::string_view module = source.module;
  const std::string root = absl::StrCat(kFirstStage, side);
  const auto resnet = [](std::string_view part) {
    return part == "conv_shortcut" ? std::string("nin_shortcut") : std::string(part);
  };
  for (const Renamed& entry : kVae) {
    std::string_view rest = module;
    if (!Consume(&rest, entry.diffusers)) continue;
    if (rest.empty()) return Add(root, entry.native, source);
    rest.remove_prefix(1);
    if (entry.native != "mid.attn_1") {
      return Add(root, absl::StrCat(entry.native, ".", resnet(rest)), source);
    }
    const auto part = Rename(kVaeAttention, rest);
    if (!part) return;
    NamedTensor tensor(source.tensor);
    if (source.parameter == "weight" && tensor.shape.size() == 2)
      tensor.shape.insert(tensor.shape.end(), 2, 1);
    named_.emplace(absl::StrCat(root, entry.native, ".", *part, ".", source.parameter),
                   std::move(tensor));
    return;
  }
  const bool down = Consume(&module, "down_blocks.");
  if (!down && !Consume(&module, "up_blocks."))
    return Add(root, module, source);  // conv_in, conv_out
  const auto level = ConsumeIndex(&module);
  if (!level) return;
  // The reference counts the decoder's levels as the encoder's.
  const std::string native = down ? absl::StrCat("down.", *level, ".")
                                  : absl::StrCat("up.", VaeLevels() - 1 - *level, ".");
  if (module == "downsamplers.0.conv") return Add(root, native + "downsample.conv", source);
  if (module == "upsamplers.0.conv") return Add(root, native + "upsample.conv", source);
  const auto index = Consume(&module, "resnets.") ? ConsumeIndex(&module) : std::nullopt;
  if (index) Add(root, absl::StrCat(native, "block.", *index, ".", resnet(module)), source);
}

// --- transformers ---

void Mapper::MapMMDiT(const Source& source) {
  std::string_view module = source.module;
  if (source.module == "pos_embed" && source.parameter == "pos_embed") {
    named_.emplace(absl::StrCat(kModel, "pos_embed"), NamedTensor(source.tensor));
    return;
  }
  if (AddRenamed(diffusers::kMMDiTNames, "", module, source)) return;
  const auto index = Consume(&module, "transformer_blocks.") ? ConsumeIndex(&module) : std::nullopt;
  if (!index) return;
  const std::string block = absl::StrCat("joint_blocks.", *index, ".");
  if (AddJoined(diffusers::kMMDiTJoined, block, module, source)) return;
  const bool last = index_.Find(absl::StrCat("transformer.transformer_blocks.", *index + 1,
                                             ".norm1.linear.weight")) == nullptr;
  AddRenamed(diffusers::kMMDiTBlockNames, block, module, source,
             last && module == diffusers::kMMDiTContextModulation);
}

void Mapper::MapFlux(const Source& source) {
  std::string_view module = source.module;
  if (AddRenamed(diffusers::kFluxNames, "", module, source)) return;
  const bool single = Consume(&module, "single_transformer_blocks.");
  if (!single && !Consume(&module, "transformer_blocks.")) return;
  const auto index = ConsumeIndex(&module);
  if (!index) return;
  const std::string block = absl::StrCat(single ? "single_blocks." : "double_blocks.", *index, ".");
  const auto joined =
      single ? std::span<const Joined>(diffusers::kFluxSingleJoined) : diffusers::kFluxDoubleJoined;
  if (AddJoined(joined, block, module, source)) return;
  // The reference calls the weight of a norm of queries and keys its scale.
  const bool is_norm = absl::StrContains(module, "attn.norm_");
  AddRenamed(
      single ? std::span<const Renamed>(diffusers::kFluxSingleNames) : diffusers::kFluxDoubleNames,
      block, module, is_norm ? Source{source.tensor, module, "scale"} : source);
}

// --- the folder ---

bool IsMMDiT(const TensorIndex& index) {
  return index.Find("transformer.pos_embed.proj.weight") != nullptr;
}
bool IsFlux(const TensorIndex& index) {
  return index.Find("transformer.single_transformer_blocks.0.proj_mlp.weight") != nullptr;
}
bool IsUNet(const TensorIndex& index) { return index.Find("unet.conv_in.weight") != nullptr; }

// The reference's name of the text model in each subfolder.
std::vector<Renamed> TextModels(const TensorIndex& index) {
  if (IsMMDiT(index)) {
    return {{"text_encoder.", "clip_l."},
            {"text_encoder_2.", "clip_g."},
            {"text_encoder_3.", "t5xxl."}};
  }
  if (IsFlux(index)) return {{"text_encoder.", "clip_l."}, {"text_encoder_2.", "t5xxl."}};
  if (index.HasPrefix("text_encoder_2.")) {  // SDXL, and the refiner without the first
    return {{"text_encoder.", "clip_l."}, {"text_encoder_2.", "clip_g."}};
  }
  // SD2's transformers have matrices where SD1's have convolutions.
  const TensorInfo* proj = index.Find("unet.down_blocks.0.attentions.0.proj_in.weight");
  const bool sd2 = proj != nullptr && proj->shape.size() == 2;
  return {{"text_encoder.", sd2 ? "clip_h." : "clip_l."}};
}

NamedTensors Mapper::Map() {
  const std::vector<Renamed> text_models = TextModels(index_);
  const auto map_transformer = IsMMDiT(index_) ? &Mapper::MapMMDiT : &Mapper::MapFlux;
  CountUNetBlocks();
  for (const TensorInfo& tensor : index_.tensors()) {
    std::string_view name = tensor.name;
    for (const Renamed& text : text_models) {
      if (!Consume(&name, text.diffusers)) continue;
      named_.emplace(absl::StrCat(text.native, "transformer.", name), NamedTensor(&tensor));
      break;
    }
    const auto source = [&] {
      const size_t dot = name.rfind('.');
      return dot == name.npos ? Source{&tensor, "", name}
                              : Source{&tensor, name.substr(0, dot), name.substr(dot + 1)};
    };
    if (Consume(&name, "unet.")) {
      MapUNet(source());
    } else if (Consume(&name, "vae.")) {
      MapVae(source());
    } else if (Consume(&name, "transformer.")) {
      (this->*map_transformer)(source());
    }
  }
  Join();
  return std::move(named_);
}

}  // namespace

bool IsDiffusersLayout(const TensorIndex& index) {
  return IsUNet(index) || IsMMDiT(index) || IsFlux(index);
}

NamedTensors MapDiffusersLayout(const TensorIndex& index) { return Mapper(index).Map(); }

}  // namespace distorch::models
