// How an image was made, in the text chunks that users' tools read: AUTOMATIC1111's WebUI
// ("parameters") and ComfyUI ("prompt").
#ifndef LIB_PIPELINE_PNG_METADATA_H_
#define LIB_PIPELINE_PNG_METADATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lib/pipeline/image8.h"

namespace distorch {

// Names are ComfyUI's: samplers and schedulers, checkpoints and adapters relative to their folders.
struct GenerationParameters {
  std::string prompt, negative_prompt;
  std::string ckpt_name;
  // The fields of CheckpointLoaderAdvancedDisTorch2MultiGPU beside ckpt_name. Empty:
  // CheckpointLoaderSimple loaded it.
  std::vector<std::pair<std::string, std::variant<std::string, double, bool>>> loader_fields;
  struct Lora {
    std::string name;
    double strength_model = 1, strength_clip = 1;
  };
  std::vector<Lora> loras;     // in the order applied
  int stop_at_clip_layer = 0;  // 0: the family's own
  uint64_t seed = 0;
  int steps = 20;
  double cfg = 8;
  std::string sampler_name = "euler";
  std::string scheduler = "normal";
  std::optional<double> guidance;  // Flux's distilled guidance
  int width = 512, height = 512, batch_size = 1;
  bool from_image = false;  // an image was the start, `denoise` the strength
  bool masked = false;      // and only a part of it was redone
  // What the model saw of the image beside the latent: editing models see it whole, inpainting
  // models what the mask leaves.
  enum class Shown { kNothing, kPicture, kMasked } shown = Shown::kNothing;
  double denoise = 1;
  std::string version;  // of this program, as "distorchd 0.1.0"
};

// The two chunks, "parameters" before "prompt". Any bytes may stand in the strings: ill-formed
// UTF-8 becomes U+FFFD.
ImageText GenerationText(const GenerationParameters& parameters);

// The WebUI's infotext: the prompt, adapters as "<lora:name:strength>" or "<lora:name:clip:model>"
// after it; "Negative prompt: …"; "Steps: 20, Sampler: Euler, …". Values with a comma, colon or
// newline are quoted as JSON strings, as the WebUI quotes them.
std::string WebUiInfotext(const GenerationParameters& parameters);

// ComfyUI's API-format graph, in ASCII. Dropped on ComfyUI it restores the settings; an image that
// the pictures started from is named "image.png" and has to be picked again.
std::string ComfyWorkflow(const GenerationParameters& parameters);

// What the WebUI calls a ComfyUI sampler ("dpmpp_2m" is "DPM++ 2M") or scheduler ("ddim_uniform" is
// "DDIM"); the name itself where the WebUI has none.
std::string_view WebUiSamplerName(std::string_view sampler_name);
std::string_view WebUiSchedulerName(std::string_view scheduler);

}  // namespace distorch

#endif  // LIB_PIPELINE_PNG_METADATA_H_
