#include "lib/models/diffusers_names.h"

#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace distorch::models {
namespace {

constexpr std::string_view kRoot = "diffusion_model.";

struct Renamed {
  std::string_view native, diffusers;
};

constexpr Renamed kResNet[] = {
    {"in_layers.0", "norm1"},  {"in_layers.2", "conv1"},  {"emb_layers.1", "time_emb_proj"},
    {"out_layers.0", "norm2"}, {"out_layers.3", "conv2"}, {"skip_connection", "conv_shortcut"},
};
constexpr Renamed kUNet[] = {
    {"input_blocks.0.0", "conv_in"},
    {"time_embed.0", "time_embedding.linear_1"},
    {"time_embed.2", "time_embedding.linear_2"},
    {"label_emb.0.0", "class_embedding.linear_1"},
    {"label_emb.0.2", "class_embedding.linear_2"},
    {"label_emb.0.0", "add_embedding.linear_1"},
    {"label_emb.0.2", "add_embedding.linear_2"},
    {"out.0", "conv_norm_out"},
    {"out.2", "conv_out"},
};

constexpr Renamed kMMDiT[] = {
    {"context_embedder", "context_embedder"},
    {"t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"},
    {"t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"},
    {"x_embedder.proj", "pos_embed.proj"},
    {"y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"},
    {"y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"},
    {"final_layer.linear", "proj_out"},
};
constexpr Renamed kMMDiTBlock[] = {
    {"context_block.attn.proj", "attn.to_add_out"},
    {"context_block.attn.ln_q", "attn.norm_added_q"},
    {"context_block.attn.ln_k", "attn.norm_added_k"},
    {"context_block.mlp.fc1", "ff_context.net.0.proj"},
    {"context_block.mlp.fc2", "ff_context.net.2"},
    {"x_block.adaLN_modulation.1", "norm1.linear"},
    {"x_block.attn.proj", "attn.to_out.0"},
    {"x_block.attn.ln_q", "attn.norm_q"},
    {"x_block.attn.ln_k", "attn.norm_k"},
    {"x_block.attn2.proj", "attn2.to_out.0"},
    {"x_block.attn2.ln_q", "attn2.norm_q"},
    {"x_block.attn2.ln_k", "attn2.norm_k"},
    {"x_block.mlp.fc1", "ff.net.0.proj"},
    {"x_block.mlp.fc2", "ff.net.2"},
};

constexpr Renamed kFlux[] = {
    {"img_in", "x_embedder"},
    {"txt_in", "context_embedder"},
    {"time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"},
    {"time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"},
    {"vector_in.in_layer", "time_text_embed.text_embedder.linear_1"},
    {"vector_in.out_layer", "time_text_embed.text_embedder.linear_2"},
    {"guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"},
    {"guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"},
    {"final_layer.linear", "proj_out"},
};
constexpr Renamed kFluxDouble[] = {
    {"img_mod.lin", "norm1.linear"},
    {"txt_mod.lin", "norm1_context.linear"},
    {"img_attn.proj", "attn.to_out.0"},
    {"txt_attn.proj", "attn.to_add_out"},
    {"img_attn.norm.query_norm", "attn.norm_q"},
    {"img_attn.norm.key_norm", "attn.norm_k"},
    {"txt_attn.norm.query_norm", "attn.norm_added_q"},
    {"txt_attn.norm.key_norm", "attn.norm_added_k"},
    {"img_mlp.0", "ff.net.0.proj"},
    {"img_mlp.2", "ff.net.2"},
    {"txt_mlp.0", "ff_context.net.0.proj"},
    {"txt_mlp.2", "ff_context.net.2"},
};
constexpr Renamed kFluxSingle[] = {
    {"modulation.lin", "norm.linear"},
    {"linear2", "proj_out"},
    {"norm.query_norm", "attn.norm_q"},
    {"norm.key_norm", "attn.norm_k"},
};

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
  // Those of `renamed` under "native." ("" for the root), as "diffusers.…".
  template <size_t N>
  void AddRenamed(const std::string& native, const std::string& diffusers,
                  const Renamed (&renamed)[N]) {
    for (const Renamed& child : renamed)
      Add(absl::StrCat(native, child.native), absl::StrCat(diffusers, child.diffusers));
  }
  // All under "native.", as "diffusers.…" with the same names.
  void AddAll(const std::string& native, const std::string& diffusers) {
    const std::string prefix = native + ".";
    for (auto it = modules_.lower_bound(prefix);
         it != modules_.end() && absl::StartsWith(it->first, prefix); ++it) {
      names_.push_back({absl::StrCat(diffusers, ".", it->first.substr(prefix.size())), it->second});
    }
  }
  // The fused matrix `native`, cut into `parts` of `rows` each and, under `rest` if not empty, what
  // is left.
  void AddRows(const std::string& native, const std::string& diffusers, int64_t rows,
               std::initializer_list<std::string_view> parts, std::string_view rest = "") {
    const WeightSlot* module = Find(native);
    if (module == nullptr) return;
    int64_t first = 0;
    for (std::string_view part : parts) {
      names_.push_back({absl::StrCat(diffusers, part), module, first, rows});
      first += rows;
    }
    if (!rest.empty())
      names_.push_back({absl::StrCat(diffusers, rest), module, first, Rows(*module) - first});
  }

  static int64_t Rows(const WeightSlot& module) { return module.params()[0].shape[0]; }
  std::vector<DiffusersName> Take() { return std::move(names_); }

 private:
  std::map<std::string, const WeightSlot*> modules_;
  std::vector<DiffusersName> names_;
};

void AddUNetBlock(Namer& namer, const std::string& native, const std::string& level, int index) {
  namer.AddRenamed(native + ".0.", absl::StrCat(level, ".resnets.", index, "."), kResNet);
  if (namer.Find(native + ".1.proj_in") != nullptr)
    namer.AddAll(native + ".1", absl::StrCat(level, ".attentions.", index));
}

void NameUNet(Namer& namer) {
  namer.AddRenamed("", "", kUNet);
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
  namer.AddRenamed("middle_block.0.", "mid_block.resnets.0.", kResNet);
  namer.AddAll("middle_block.1", "mid_block.attentions.0");
  namer.AddRenamed("middle_block.2.", "mid_block.resnets.1.", kResNet);
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
  namer.AddRenamed("", "", kMMDiT);
  namer.Add("final_layer.adaLN_modulation.1", "norm_out.linear", /*swapped_halves=*/true);
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("joint_blocks.", i, ".");
    const std::string diffusers = absl::StrCat("transformer_blocks.", i, ".");
    const WeightSlot* const qkv = namer.Find(native + "x_block.attn.qkv");
    if (qkv == nullptr) break;
    const int64_t width = Namer::Rows(*qkv) / 3;
    namer.AddRows(native + "x_block.attn.qkv", diffusers, width,
                  {"attn.to_q", "attn.to_k", "attn.to_v"});
    namer.AddRows(native + "context_block.attn.qkv", diffusers, width,
                  {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"});
    namer.AddRows(native + "x_block.attn2.qkv", diffusers, width,
                  {"attn2.to_q", "attn2.to_k", "attn2.to_v"});
    namer.AddRenamed(native, diffusers, kMMDiTBlock);
    // The last block's context goes no further: its modulation is only a scale and a shift.
    const bool last = !namer.HasBlock(absl::StrCat("joint_blocks.", i + 1));
    namer.Add(native + "context_block.adaLN_modulation.1", diffusers + "norm1_context.linear",
              /*swapped_halves=*/last);
  }
}

void NameFlux(Namer& namer) {
  namer.AddRenamed("", "", kFlux);
  namer.Add("final_layer.adaLN_modulation.1", "norm_out.linear", /*swapped_halves=*/true);
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("double_blocks.", i, ".");
    const std::string diffusers = absl::StrCat("transformer_blocks.", i, ".");
    const WeightSlot* const qkv = namer.Find(native + "img_attn.qkv");
    if (qkv == nullptr) break;
    const int64_t width = Namer::Rows(*qkv) / 3;
    namer.AddRows(native + "img_attn.qkv", diffusers, width,
                  {"attn.to_q", "attn.to_k", "attn.to_v"});
    namer.AddRows(native + "txt_attn.qkv", diffusers, width,
                  {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"});
    namer.AddRenamed(native, diffusers, kFluxDouble);
  }
  for (int i = 0;; ++i) {
    const std::string native = absl::StrCat("single_blocks.", i, ".");
    const std::string diffusers = absl::StrCat("single_transformer_blocks.", i, ".");
    const WeightSlot* const out = namer.Find(native + "linear2");
    if (out == nullptr) break;
    namer.AddRows(native + "linear1", diffusers, Namer::Rows(*out),
                  {"attn.to_q", "attn.to_k", "attn.to_v"}, "proj_mlp");
    namer.AddRenamed(native, diffusers, kFluxSingle);
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
