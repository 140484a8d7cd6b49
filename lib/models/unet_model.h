// A UNet (lib/nn/unet.h) as a DiffusionModel.
#ifndef LIB_MODELS_UNET_MODEL_H_
#define LIB_MODELS_UNET_MODEL_H_

#include <vector>

#include "lib/models/diffusion_model.h"
#include "lib/nn/unet.h"

namespace distorch::models {

// The numbers that SDXL's UNets are told of the picture, each as a Fourier embedding of
// kSizeEmbeddingWidth ("SDXL: Improving Latent Diffusion Models", Podell et al., 2023).
enum class SizeField {
  kHeight,
  kWidth,
  kCropHeight,
  kCropWidth,
  kTargetHeight,
  kTargetWidth,
  kAestheticScore,
};
inline constexpr int64_t kSizeEmbeddingWidth = 256;

struct UNetModelConfig {
  nn::UNetConfig unet;
  const LatentFormat* latent_format = nullptr;  // outlives the model
  sampling::ModelSamplingConfig sampling;
  // What each input channel beside the latent's holds, everywhere, when the conditioning brings no
  // concat; its size is the number of those channels.
  std::vector<float> blank_concat;
  bool edits_in_model_space = false;
  // What follows the pooled text in the class embedding's input, in order. Empty with a class
  // embedding: its input is zeros.
  std::vector<SizeField> size_fields;
};

class UNetModel : public DiffusionModel {
 public:
  UNetModel(const NamedTensors* tensors, const UNetModelConfig& config);

  int64_t context_width() const override { return unet_.config().context_width; }
  int64_t pooled_width() const override;
  int64_t concat_channels() const override { return static_cast<int64_t>(blank_concat_.size()); }
  bool edits_in_model_space() const override { return edits_in_model_space_; }
  // Sizes default to the latent's in pixels, targets to the size, the aesthetic score to 6 on the
  // positive side and 2.5 on the negative. A size of 0 means its default.
  text::Conditioning Prepare(text::Conditioning conditioning, GuidanceSide side, int64_t height,
                             int64_t width) const override;
  StepWork Work(const StepSize& size) const override { return UNetWork(ShapeOf(store()), size); }
  at::Tensor Denoise(const at::Tensor& x, double sigma,
                     const text::Conditioning& conditioning) const override;

 private:
  // [N, class_channels], float32 on the CPU.
  at::Tensor Vector(const text::Conditioning& conditioning, GuidanceSide side, int64_t height,
                    int64_t width) const;

  nn::UNet unet_;
  const std::vector<float> blank_concat_;
  const bool edits_in_model_space_;
  const std::vector<SizeField> size_fields_;
};

}  // namespace distorch::models

#endif  // LIB_MODELS_UNET_MODEL_H_
