#include "lib/models/key_map.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/models/diffusers_layout.h"

namespace distorch::models {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

constexpr Renaming kOpenClipNames[] = {
    {"positional_embedding", "embeddings.position_embedding.weight"},
    {"token_embedding.weight", "embeddings.token_embedding.weight"},
    {"ln_final.weight", "final_layer_norm.weight"},
    {"ln_final.bias", "final_layer_norm.bias"},
};

// Within a layer, what comes before ".weight" or ".bias".
constexpr Renaming kOpenClipLayerNames[] = {
    {"ln_1", "layer_norm1"},
    {"ln_2", "layer_norm2"},
    {"mlp.c_fc", "mlp.fc1"},
    {"mlp.c_proj", "mlp.fc2"},
    {"attn.out_proj", "self_attn.out_proj"},
};

bool Consume(std::string_view* text, std::string_view prefix) {
  if (!absl::StartsWith(*text, prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// Query, key and value projections, a third of the rows each.
void CutInputProjection(std::string_view parameter, const TensorInfo& tensor,
                        const std::string& layer, NamedTensors* named) {
  constexpr std::array<std::string_view, 3> kParts = {"q_proj", "k_proj", "v_proj"};
  const int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0] / 3;
  // What cannot be cut is left out, and is reported as missing.
  if (rows == 0 || tensor.shape[0] != 3 * rows) return;
  for (size_t i = 0; i < kParts.size(); ++i) {
    NamedTensor part(&tensor);
    part.shape[0] = rows;
    part.pieces = {{&tensor, static_cast<int64_t>(i) * rows, rows}};
    named->emplace(absl::StrCat(layer, "self_attn.", kParts[i], ".", parameter), std::move(part));
  }
}

// `name`: "0.attn.in_proj_weight".
void ConvertOpenClipLayer(std::string_view name, const TensorInfo& tensor, std::string_view text,
                          NamedTensors* named) {
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return;
  const std::string layer = absl::StrCat(text, "encoder.layers.", name.substr(0, dot), ".");
  std::string_view rest = name.substr(dot + 1);
  if (Consume(&rest, "attn.in_proj_")) {
    CutInputProjection(rest, tensor, layer, named);
    return;
  }
  const size_t end = rest.rfind('.');
  if (end == std::string_view::npos) return;
  for (const auto& [from, to] : kOpenClipLayerNames) {
    if (rest.substr(0, end) == from) {
      named->emplace(absl::StrCat(layer, to, rest.substr(end)), NamedTensor(&tensor));
      return;
    }
  }
}

}  // namespace

void ConvertOpenClip(std::string_view name, const TensorInfo& tensor, std::string_view to,
                     NamedTensors* named) {
  const std::string text = absl::StrCat(to, "transformer.text_model.");
  const std::string projection = absl::StrCat(to, "transformer.text_projection.weight");
  if (absl::StartsWith(name, "transformer.text_model.")) {
    named->emplace(absl::StrCat(to, name), NamedTensor(&tensor));
    return;
  }
  if (name == "text_projection.weight" || name == "transformer.text_projection.weight") {
    named->emplace(projection, NamedTensor(&tensor));
    return;
  }
  if (name == "text_projection") {
    NamedTensor transposed(&tensor);
    // Of any other rank it stays as it is, for the reader of shapes to refuse.
    if (tensor.shape.size() == 2) {
      std::swap(transposed.shape[0], transposed.shape[1]);
      transposed.transposed = true;
    }
    named->emplace(projection, std::move(transposed));
    return;
  }
  if (Consume(&name, "transformer.resblocks.")) {
    ConvertOpenClipLayer(name, tensor, text, named);
    return;
  }
  for (const auto& [from, renamed] : kOpenClipNames) {
    if (name == from) named->emplace(absl::StrCat(text, renamed), NamedTensor(&tensor));
  }
}

NamedTensors MapKeys(const TensorIndex& index, std::span<const KeyRule> rules) {
  if (IsDiffusersLayout(index)) return MapDiffusersLayout(index);
  NamedTensors named;
  named.reserve(index.tensors().size());
  for (const TensorInfo& tensor : index.tensors()) {
    for (const KeyRule& rule : rules) {
      std::string_view rest = tensor.name;
      if (!Consume(&rest, rule.from)) continue;
      if (rule.convert != nullptr) {
        rule.convert(rest, tensor, rule.to, &named);
      } else {
        named.emplace(absl::StrCat(rule.to, rest), NamedTensor(&tensor));
      }
      break;
    }
  }
  return named;
}

}  // namespace distorch::models
