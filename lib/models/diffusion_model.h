// A placed diffusion network with its sampling rules: what samplers evaluate.
#ifndef LIB_MODELS_DIFFUSION_MODEL_H_
#define LIB_MODELS_DIFFUSION_MODEL_H_

#include <ATen/core/Tensor.h>

#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/models/latent_format.h"
#include "lib/models/step_work.h"
#include "lib/nn/component.h"
#include "lib/sampling/model_sampling.h"
#include "lib/text/conditioning.h"

namespace distorch::models {

// Which half of classifier-free guidance a conditioning serves: defaults may depend on it.
enum class GuidanceSide { kPositive, kNegative };

class DiffusionModel : public nn::Component {
 public:
  DiffusionModel(const NamedTensors* tensors, const LatentFormat& latent_format,
                 sampling::ModelSampling sampling)
      : Component(tensors), latent_format_(latent_format), sampling_(std::move(sampling)) {}

  const LatentFormat& latent_format() const { return latent_format_; }
  const sampling::ModelSampling& sampling() const { return sampling_; }
  // Width of cross_attention.
  virtual int64_t context_width() const = 0;
  // Width of Conditioning::pooled; 0 for a model that takes none, and then one given is ignored.
  virtual int64_t pooled_width() const { return 0; }
  // Channels of Conditioning::concat; 0 for a model that takes none.
  virtual int64_t concat_channels() const = 0;
  // Whether the latent of a picture to edit, where that is all of Conditioning::concat, is in the
  // model's space; false: the user's, as InstructPix2Pix was trained.
  virtual bool edits_in_model_space() const { return true; }
  // The longest side of a latent that the model has positions for.
  virtual int64_t max_latent_side() const { return std::numeric_limits<int64_t>::max(); }
  // Whether a conditioning whose tokens are repeated means the same to the model. It does where
  // they are only attended to.
  virtual bool context_may_repeat() const { return true; }

  // How much one evaluation computes, block by block; without blocks: it is not known.
  virtual StepWork Work(const StepSize& /*size*/) const { return {}; }

  // INVALID_ARGUMENT naming the part of `conditioning` that does not fit this model or a batch of
  // `batch` latents of [height, width].
  absl::Status CheckConditioning(const text::Conditioning& conditioning, int64_t batch,
                                 int64_t height, int64_t width) const;

  // What Denoise takes at every step, made once: `conditioning`, checked, for latents of [height,
  // width], its tensors on the compute device and the model's defaults filled in. For a model with
  // size conditioning, pooled becomes the whole vector beside the text: the pooled text, then the
  // sizes' embeddings; size is gone then. Throws as LibTorch does: call it inside RunTorch.
  virtual text::Conditioning Prepare(text::Conditioning conditioning, GuidanceSide side,
                                     int64_t height, int64_t width) const;

  // One evaluation: the denoised latent for x at noise level sigma. x: [N, C, h, w] float32 on the
  // compute device, in the model's space; conditioning: prepared, batched N or 1. Returns float32
  // like x. Throws as LibTorch does: call it inside RunTorch.
  virtual at::Tensor Denoise(const at::Tensor& x, double sigma,
                             const text::Conditioning& conditioning) const = 0;

 protected:
  // A part of a conditioning for a batch of `batch`, on the compute device in the compute type.
  at::Tensor ToCompute(const at::Tensor& part, int64_t batch) const;
  // What extra input channels hold beside x, in the compute type: the conditioning's concat, or
  // everywhere `blank`, one value a channel.
  at::Tensor Concat(const at::Tensor& x, const text::Conditioning& conditioning,
                    const std::vector<float>& blank) const;

 private:
  const LatentFormat& latent_format_;
  const sampling::ModelSampling sampling_;
};

// `store`'s blocks and units, as StepWork is counted from.
ModelShape ShapeOf(const WeightStore& store);

}  // namespace distorch::models

#endif  // LIB_MODELS_DIFFUSION_MODEL_H_
