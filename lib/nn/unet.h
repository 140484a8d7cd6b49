// The latent-diffusion UNet: "High-Resolution Image Synthesis with Latent Diffusion Models"
// (Rombach et al., 2022), with the ResNet blocks of "Diffusion Models Beat GANs" (Dhariwal &
// Nichol, 2021). Shape-driven: SD1, SD2 and SDXL are configurations of it. Block names and order
// are the reference's.
#ifndef LIB_NN_UNET_H_
#define LIB_NN_UNET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lib/nn/layers.h"

namespace distorch::nn {

// One entry of input_blocks or output_blocks.
struct UNetBlockConfig {
  enum class Kind { kConvIn, kResNet, kDownsample };
  Kind kind = Kind::kResNet;
  int64_t in_channels = 0, out_channels = 0;
  int64_t transformer_depth = 0;  // 0: no attention
  bool upsample = false;          // output blocks: ends with a 2× upsampling
};

struct UNetConfig {
  int64_t in_channels = 4, out_channels = 4;
  int64_t model_channels = 320;
  int64_t time_embed_channels = 1280;
  int64_t class_channels = 0;  // width of the vector that conditions beside the text; 0: none
  int64_t context_width = 768;
  int64_t heads = 8;  // of every attention; 0: as many as head_channels asks for
  int64_t head_channels = 0;
  bool linear_projection = false;  // the transformers' proj_in/proj_out are Linear, not 1×1 Conv2d
  std::vector<UNetBlockConfig> input_blocks, output_blocks;
  // Distilled UNets lack the transformer and the second ResNet block, or the whole middle.
  enum class Middle { kNone, kResNet, kResNetTransformerResNet };
  Middle middle = Middle::kResNetTransformerResNet;
  int64_t middle_channels = 1280;
  int64_t middle_transformer_depth = 1;
};

class UNetBlock;

class UNet {
 public:
  UNet(const Scope& scope, const UNetConfig& config);
  ~UNet();

  // x: [N, in_channels, h, w], any h and w ≥ 1; timesteps: [N] float32; context: [N, tokens,
  // context_width] and vector: [N, class_channels] in x's type, vector undefined when
  // class_channels is 0. Returns the model's raw output [N, out_channels, h, w].
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& timesteps, const at::Tensor& context,
                     const at::Tensor& vector) const;

  const UNetConfig& config() const { return config_; }

 private:
  UNetConfig config_;
  Linear time_embed_0_, time_embed_2_;
  std::optional<Linear> label_embed_0_, label_embed_2_;
  std::vector<std::unique_ptr<UNetBlock>> input_blocks_;
  std::vector<std::unique_ptr<UNetBlock>> middle_;  // a block each part
  std::vector<std::unique_ptr<UNetBlock>> output_blocks_;
  GroupNorm out_norm_;
  Conv2d out_conv_;
};

// Sinusoidal embedding [N, width] of `timesteps` [N], cosines first ("Attention Is All You Need",
// base `max_period`).
at::Tensor TimestepEmbedding(const at::Tensor& timesteps, int64_t width, double max_period = 10000);

}  // namespace distorch::nn

#endif  // LIB_NN_UNET_H_
