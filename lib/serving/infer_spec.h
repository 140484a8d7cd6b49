// Plain types of the inference half of the service. Free of LibTorch and protobuf; server/
// translates. Shapes: images [N, H, W, 3] float32 in 0…1; latents [N, C, H/8, W/8] in the user's
// space (a ComfyUI LATENT).
#ifndef LIB_SERVING_INFER_SPEC_H_
#define LIB_SERVING_INFER_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/host_tensor.h"

namespace distorch {

struct HostSizeConditioning {
  int width = 0, height = 0, crop_w = 0, crop_h = 0, target_width = 0, target_height = 0;
  std::optional<double> aesthetic_score;
};

struct HostConditioning {
  HostTensor cross_attention;  // [N, tokens, width]
  std::optional<HostTensor> pooled;
  std::optional<HostTensor> attention_mask;
  std::optional<HostSizeConditioning> size;
  std::optional<double> guidance;
  std::optional<HostTensor> concat;
};

// A conditioning sent along, or the id of one that EncodeText left in the server.
struct ConditioningRef {
  std::string id;  // wins when not empty
  std::optional<HostConditioning> value;
};

struct EncodeTextSpec {
  std::string clip;
  std::string text;
};
struct EncodeTextResult {
  std::string conditioning_id;
  HostConditioning conditioning;
  std::vector<std::string> warnings;  // what the text asked for that is not in it
};

// KSampler's fields (and KSamplerAdvanced's, the optional ones).
struct SamplingOptions {
  uint64_t seed = 0;
  int steps = 20;
  double cfg = 8.0;
  std::string sampler_name = "euler";
  std::string scheduler = "normal";
  double denoise = 1.0;
  std::optional<int> start_step;
  std::optional<int> end_step;
  std::optional<bool> add_noise;           // absent: true
  std::optional<bool> force_full_denoise;  // absent: true, as KSampler's
  std::optional<double> guidance;
  std::string parallel;  // "off", "auto" or devices (lib/serving/device_teams.h); empty: --parallel
};

// Where a request stands that waits for a device.
struct QueueProgress {
  int position = 0;    // 1: the next to run; more urgent requests may still come in before it
  double seconds = 0;  // predicted until it runs, as far as is known; 0: nothing is
};

struct StepProgress {
  int step = 0;  // 1-based: steps finished
  int steps = 0;
  double seconds = 0;       // this step's
  std::string preview_png;  // empty unless asked for at this step
};

struct SampleSpec {
  std::string model;
  SamplingOptions options;
  ConditioningRef positive, negative;
  HostTensor latent;
  std::optional<HostTensor> noise;
  int preview_every = 0;
  std::vector<double> sigmas;
  std::optional<HostTensor> noise_mask;
  int priority = 0;  // in the devices' queues (lib/serving/fair_queue.h): -10 to 10
};

// x and denoised are in the model's own (scaled) latent space. sigma: one a batch item, or one for
// all.
struct DenoiseSpec {
  std::string model;
  HostTensor x;
  std::vector<double> sigma;
  HostConditioning conditioning;
};

struct DecodeLatentSpec {
  std::string vae;
  HostTensor latent;
  bool as_png = false;
  int tile_size = 0;  // pixels; 0: whole, and by tiles only when memory lacks
};
struct DecodeLatentResult {
  HostTensor images;             // when !as_png
  std::vector<std::string> png;  // when as_png
};

struct EncodeImageSpec {
  std::string vae;
  std::optional<HostTensor> pixels;
  std::string encoded;  // PNG, JPEG or WebP bytes, when no pixels
  int tile_size = 0;    // as DecodeLatentSpec's
};

// What an Infer is to give; without files and pixels nothing is decoded.
struct InferOutputs {
  bool files = true;
  bool pixels = false;
  bool latent = false;
};

// An adapter as ApplyLora's.
struct InferLora {
  std::string name;
  double strength_model = 1, strength_clip = 1;
};

struct InferSpec {
  std::string model, clip, vae;
  std::vector<InferLora> loras;  // for this request alone, applied to model and clip in this order
  std::string prompt, negative_prompt;
  int width = 512, height = 512, batch_size = 1;
  SamplingOptions options;
  std::string init_image;  // PNG, JPEG or WebP; empty: start from noise
  std::string mask_image;  // white where to repaint; empty: where init_image is transparent
  int preview_every = 0;
  std::string image_format = "png";  // or "jpeg", "jpg", "webp"; empty: "png"
  int tile_size = 0;                 // as DecodeLatentSpec's
  InferOutputs outputs = {};
  int priority = 0;  // in the devices' queues (lib/serving/fair_queue.h): -10 to 10
};
struct InferResult {
  std::vector<std::string> png;      // of any image_format; generation parameters embedded
  std::optional<HostTensor> pixels;  // [N, H, W, 3] uint8, what the files hold
  std::optional<HostTensor> latent;
  uint64_t seed = 0;
  std::map<std::string, double>
      phase_seconds;                  // "queue", "text", "sample", "decode", "encode", "png"
  std::vector<std::string> warnings;  // what the prompts asked for that is not in the picture
};

}  // namespace distorch

#endif  // LIB_SERVING_INFER_SPEC_H_
