// One Infer: text and, for image to image, the picture, then the sampler, then the decoder.
#ifndef LIB_SERVING_INFER_JOB_H_
#define LIB_SERVING_INFER_JOB_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/pipeline/png_metadata.h"
#include "lib/pipeline/sample_latent.h"
#include "lib/pipeline/vae.h"
#include "lib/serving/activation_room.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/device_teams.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/observer.h"
#include "lib/serving/preview_decoders.h"
#include "lib/serving/prompt_embeddings.h"
#include "lib/serving/registry.h"

namespace distorch {

// What a job uses beside the handles' components. All outlive it.
struct InferServices {
  const ModelFolders* embeddings = nullptr;
  PreviewDecoders* preview_decoders = nullptr;
  const DeviceTeams* teams = nullptr;
  ActivationRoom* activations = nullptr;
  Observer* observer = nullptr;
};

// Each method is one phase, to be run in order, one thread at a time, and again when it failed;
// state passes between them in the object. `by_tiles`: there is no memory for pictures at once.
class InferJob {
 public:
  // Checks every field; INVALID_ARGUMENT names it. The pins are those of the spec's handles.
  static absl::StatusOr<std::shared_ptr<InferJob>> Create(const InferSpec& spec, Pin model,
                                                          Pin clip, Pin vae, CancelTokenPtr cancel,
                                                          InferCallbacks callbacks,
                                                          const InferServices& services);

  absl::Status EncodePrompts();
  // Only when has_init_image(): the picture to the latent to start from, the mask to where to
  // repaint; what the model's extra channels see of both, where it has some. A model that edits
  // starts from an empty latent, as in the reference's workflow, unless it is to keep something of
  // the picture (denoise below 1, or a mask).
  absl::Status EncodeInitImage(bool by_tiles);
  absl::Status Sample();
  absl::Status Decode(bool by_tiles);

  const Pin& model() const { return model_; }
  const Pin& clip() const { return clip_; }
  const Pin& vae() const { return vae_; }
  // As far as it is known before anything has run: of the sizes, and of the sampler.
  const pipeline::SampleInputs& inputs() const { return inputs_; }
  bool has_init_image() const { return !spec_.init_image.empty(); }
  bool decodes() const { return spec_.outputs.files || spec_.outputs.pixels; }
  // After Decode: what InferSpec's outputs ask for.
  std::vector<std::string> TakePng() { return std::move(png_); }
  std::optional<HostTensor> TakePixels() { return std::move(pixels_); }
  std::optional<HostTensor> TakeLatent() { return std::move(latent_out_); }
  // After EncodePrompts: InferResult's.
  std::vector<std::string> warnings() const { return embeddings_.warnings(); }
  uint64_t seed() const { return spec_.options.seed; }

 private:
  InferJob(const InferSpec& spec, Pin model, Pin clip, Pin vae, CancelTokenPtr cancel,
           InferCallbacks callbacks, const InferServices& services);
  absl::Status CheckFields() const;
  pipeline::VaeOptions VaeOptions(bool by_tiles) const;
  GenerationParameters Parameters() const;
  // [1, 1, H, W]: where to repaint; undefined: everywhere. `picture` is the one to start from.
  absl::StatusOr<at::Tensor> Mask(const Image8& picture) const;
  // What an inpainting model sees beside the latent: the mask and the picture without what it
  // covers.
  absl::Status ConditionOnMask(const at::Tensor& image, const at::Tensor& mask,
                               const pipeline::VaeOptions& options);
  // What an editing model sees: the picture's latent.
  absl::Status ConditionOnPicture(const at::Tensor& latent);
  void AddPixels(const Image8& image);

  const InferSpec spec_;
  const Pin model_, clip_, vae_;
  const CancelTokenPtr cancel_;
  const InferCallbacks callbacks_;
  const InferServices services_;
  PromptEmbeddings embeddings_;

  pipeline::SampleInputs inputs_;
  at::Tensor latent_;
  std::vector<std::string> png_;
  std::optional<HostTensor> pixels_, latent_out_;
};

}  // namespace distorch

#endif  // LIB_SERVING_INFER_JOB_H_
