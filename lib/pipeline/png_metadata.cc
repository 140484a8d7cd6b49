#include "lib/pipeline/png_metadata.h"

#include <unicode/utf8.h>

#include <nlohmann/json.hpp>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace distorch {
namespace {

using Json = nlohmann::ordered_json;
using NamePair = std::pair<std::string_view, std::string_view>;

// ComfyUI's name, WebUI's label.
constexpr NamePair kSamplers[] = {
    {"euler", "Euler"},
    {"euler_ancestral", "Euler a"},
    {"heun", "Heun"},
    {"dpm_2", "DPM2"},
    {"dpm_2_ancestral", "DPM2 a"},
    {"lms", "LMS"},
    {"dpm_fast", "DPM fast"},
    {"dpm_adaptive", "DPM adaptive"},
    {"dpmpp_2s_ancestral", "DPM++ 2S a"},
    {"dpmpp_sde", "DPM++ SDE"},
    {"dpmpp_sde_gpu", "DPM++ SDE"},
    {"dpmpp_2m", "DPM++ 2M"},
    {"dpmpp_2m_sde", "DPM++ 2M SDE"},
    {"dpmpp_2m_sde_gpu", "DPM++ 2M SDE"},
    {"dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun"},
    {"dpmpp_2m_sde_heun_gpu", "DPM++ 2M SDE Heun"},
    {"dpmpp_3m_sde", "DPM++ 3M SDE"},
    {"dpmpp_3m_sde_gpu", "DPM++ 3M SDE"},
    {"ddpm", "DDPM"},
    {"lcm", "LCM"},
    {"ddim", "DDIM"},
    {"uni_pc", "UniPC"},
};
constexpr NamePair kSchedulers[] = {
    {"normal", "Normal"},
    {"karras", "Karras"},
    {"exponential", "Exponential"},
    {"sgm_uniform", "SGM Uniform"},
    {"simple", "Simple"},
    {"ddim_uniform", "DDIM"},
    {"beta", "Beta"},
    {"kl_optimal", "KL Optimal"},
};

std::string_view Translate(std::span<const NamePair> names, std::string_view name) {
  for (const auto& [comfy, web_ui] : names) {
    if (comfy == name) return web_ui;
  }
  return name;
}

// Text that a PNG chunk can hold: well-formed UTF-8 without NUL.
std::string ChunkText(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), i, text.size(), c);
    if (c < 0) {
      absl::StrAppend(&result, "\uFFFD");
    } else if (c > 0) {
      absl::StrAppend(&result, text.substr(begin, i - begin));
    }
  }
  return result;
}

std::string Dump(const Json& json, bool ascii) {
  return json.dump(-1, ' ', ascii, Json::error_handler_t::replace);
}

std::string Quote(std::string_view value) {
  if (value.find_first_of(",:\n") == value.npos) return std::string(value);
  return Dump(Json(value), /*ascii=*/false);
}

// The file's name without folders and extension.
std::string ModelName(std::string_view ckpt_name) {
  ckpt_name = ckpt_name.substr(ckpt_name.find_last_of("/\\") + 1);
  return std::string(ckpt_name.substr(0, ckpt_name.rfind('.')));
}

// An API-format graph under construction. Nodes are numbered from 1 in the order added.
class Graph {
 public:
  struct Node {
    std::string id;
    // A connection to the node's output `index`.
    Json operator[](int index) const { return Json::array({id, index}); }
  };

  Node Add(std::string_view class_type, Json inputs) {
    Node node{absl::StrCat(json_.size() + 1)};
    json_[node.id] = {{"class_type", class_type}, {"inputs", std::move(inputs)}};
    return node;
  }

  std::string Text() const { return Dump(json_, /*ascii=*/true); }

 private:
  Json json_ = Json::object();
};

struct LoadedModels {
  Json model, clip, vae;
};

LoadedModels AddLoaders(const GenerationParameters& p, Graph* graph) {
  Json fields = {{"ckpt_name", p.ckpt_name}};
  for (const auto& [name, value] : p.loader_fields) {
    std::visit([&, &field = name](const auto& v) { fields[field] = v; }, value);
  }
  const Graph::Node loader =
      graph->Add(p.loader_fields.empty() ? "CheckpointLoaderSimple"
                                         : "CheckpointLoaderAdvancedDisTorch2MultiGPU",
                 std::move(fields));
  LoadedModels loaded{loader[0], loader[1], loader[2]};
  for (const GenerationParameters::Lora& lora : p.loras) {
    const Graph::Node node = graph->Add("LoraLoader", {{"lora_name", lora.name},
                                                       {"strength_model", lora.strength_model},
                                                       {"strength_clip", lora.strength_clip},
                                                       {"model", loaded.model},
                                                       {"clip", loaded.clip}});
    loaded.model = node[0];
    loaded.clip = node[1];
  }
  if (p.stop_at_clip_layer != 0) {
    loaded.clip = graph->Add("CLIPSetLastLayer", {{"stop_at_clip_layer", p.stop_at_clip_layer},
                                                  {"clip", loaded.clip}})[0];
  }
  return loaded;
}

// What KSampler takes beside the model.
struct SamplerInputs {
  Json positive, negative, latent;
};

// The nodes between an image to start from and the sampler.
void AddImage(const GenerationParameters& p, const LoadedModels& loaded, SamplerInputs* inputs,
              Graph* graph) {
  using Shown = GenerationParameters::Shown;
  const Graph::Node image = graph->Add("LoadImage", {{"image", "image.png"}});
  if (p.shown != Shown::kNothing) {
    Json fields = {{"positive", inputs->positive},
                   {"negative", inputs->negative},
                   {"vae", loaded.vae},
                   {"pixels", image[0]}};
    if (p.shown == Shown::kMasked) fields.update({{"mask", image[1]}, {"noise_mask", true}});
    const Graph::Node shown = graph->Add(
        p.shown == Shown::kPicture ? "InstructPixToPixConditioning" : "InpaintModelConditioning",
        std::move(fields));
    *inputs = {shown[0], shown[1], shown[2]};
  }
  // An editing model's own latent is empty.
  const bool is_kept = p.masked || p.denoise < 1;
  if (p.shown == Shown::kNothing || (p.shown == Shown::kPicture && is_kept)) {
    inputs->latent = graph->Add("VAEEncode", {{"pixels", image[0]}, {"vae", loaded.vae}})[0];
    if (p.masked) {
      inputs->latent =
          graph->Add("SetLatentNoiseMask", {{"samples", inputs->latent}, {"mask", image[1]}})[0];
    }
  }
  if (p.batch_size > 1) {
    inputs->latent =
        graph->Add("RepeatLatentBatch", {{"samples", inputs->latent}, {"amount", p.batch_size}})[0];
  }
}

}  // namespace

std::string_view WebUiSamplerName(std::string_view sampler_name) {
  return Translate(kSamplers, sampler_name);
}

std::string_view WebUiSchedulerName(std::string_view scheduler) {
  return Translate(kSchedulers, scheduler);
}

std::string WebUiInfotext(const GenerationParameters& p) {
  std::vector<std::string> fields;
  const auto add = [&](std::string_view name, const auto& value) {
    fields.push_back(absl::StrCat(name, ": ", Quote(absl::StrCat(value))));
  };
  add("Steps", p.steps);
  add("Sampler", WebUiSamplerName(p.sampler_name));
  add("Schedule type", WebUiSchedulerName(p.scheduler));
  add("CFG scale", p.cfg);
  if (p.guidance) add("Distilled CFG Scale", *p.guidance);
  add("Seed", p.seed);
  add("Size", absl::StrCat(p.width, "x", p.height));
  add("Model", ModelName(p.ckpt_name));
  if (p.from_image || p.denoise != 1) add("Denoising strength", p.denoise);
  if (p.stop_at_clip_layer != 0) add("Clip skip", -p.stop_at_clip_layer);
  add("Version", p.version);

  std::string text = p.prompt;
  for (const GenerationParameters::Lora& lora : p.loras) {
    // One strength, or the text encoder's and then the UNet's.
    absl::StrAppend(&text, " <lora:", ModelName(lora.name), ":");
    if (lora.strength_clip != lora.strength_model) absl::StrAppend(&text, lora.strength_clip, ":");
    absl::StrAppend(&text, lora.strength_model, ">");
  }
  if (!p.negative_prompt.empty()) {
    absl::StrAppend(&text, "\nNegative prompt: ", p.negative_prompt);
  }
  absl::StrAppend(&text, "\n", absl::StrJoin(fields, ", "));
  return ChunkText(absl::StripAsciiWhitespace(text));
}

std::string ComfyWorkflow(const GenerationParameters& p) {
  Graph graph;
  const LoadedModels loaded = AddLoaders(p, &graph);
  SamplerInputs inputs;
  inputs.positive = graph.Add("CLIPTextEncode", {{"text", p.prompt}, {"clip", loaded.clip}})[0];
  inputs.negative =
      graph.Add("CLIPTextEncode", {{"text", p.negative_prompt}, {"clip", loaded.clip}})[0];
  if (p.guidance) {
    inputs.positive = graph.Add("FluxGuidance",
                                {{"guidance", *p.guidance}, {"conditioning", inputs.positive}})[0];
  }
  if (p.from_image) {
    AddImage(p, loaded, &inputs, &graph);
  } else {
    inputs.latent =
        graph.Add("EmptyLatentImage",
                  {{"width", p.width}, {"height", p.height}, {"batch_size", p.batch_size}})[0];
  }
  const Graph::Node sampled = graph.Add("KSampler", {{"seed", p.seed},
                                                     {"steps", p.steps},
                                                     {"cfg", p.cfg},
                                                     {"sampler_name", p.sampler_name},
                                                     {"scheduler", p.scheduler},
                                                     {"denoise", p.denoise},
                                                     {"model", loaded.model},
                                                     {"positive", inputs.positive},
                                                     {"negative", inputs.negative},
                                                     {"latent_image", inputs.latent}});
  const Graph::Node decoded =
      graph.Add("VAEDecode", {{"samples", sampled[0]}, {"vae", loaded.vae}});
  graph.Add("SaveImage", {{"filename_prefix", "distorchd"}, {"images", decoded[0]}});
  return graph.Text();
}

ImageText GenerationText(const GenerationParameters& parameters) {
  return {{"parameters", WebUiInfotext(parameters)}, {"prompt", ComfyWorkflow(parameters)}};
}

}  // namespace distorch
