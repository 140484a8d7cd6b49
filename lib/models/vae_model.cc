#include "lib/models/vae_model.h"

#include <ATen/ATen.h>

#include <vector>

#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"

namespace distorch::models {
namespace {

// `step` on each item of the batch, joined.
template <typename Step>
absl::StatusOr<at::Tensor> OneByOne(const at::Tensor& batch, const CancelToken& cancel, Step step) {
  return RunTorchOr<at::Tensor>([&]() -> absl::StatusOr<at::Tensor> {
    std::vector<at::Tensor> results;
    for (int64_t i = 0; i < batch.size(0); ++i) {
      RETURN_IF_ERROR(cancel.Check());
      results.push_back(step(batch.slice(0, i, i + 1)));
    }
    return at::cat(results);
  });
}

at::Tensor CropToMultiple(const at::Tensor& images, int64_t dim, int64_t multiple) {
  const int64_t size = images.size(dim) / multiple * multiple;
  return images.narrow(dim, (images.size(dim) % multiple) / 2, size);
}

}  // namespace

VaeModel::VaeModel(const NamedTensors* tensors, const nn::VaeConfig& config)
    : Component(tensors), vae_(nn::Scope(&store(), "first_stage_model"), config) {}

absl::StatusOr<at::Tensor> VaeModel::Decode(const at::Tensor& latents,
                                            const CancelToken& cancel) const {
  return OneByOne(latents, cancel, [this](const at::Tensor& latent) {
    const at::Tensor image = vae_.Decode(latent.to(compute().device).to(compute().dtype));
    return image.to(at::kCPU)
        .to(at::kFloat)
        .add_(1)
        .div_(2)
        .clamp_(0, 1)
        .permute({0, 2, 3, 1})
        .contiguous();
  });
}

absl::StatusOr<at::Tensor> VaeModel::Encode(const at::Tensor& images,
                                            const CancelToken& cancel) const {
  return OneByOne(CropToMultiple(CropToMultiple(images, 1, downscale()), 2, downscale()), cancel,
                  [this](const at::Tensor& image) {
                    const at::Tensor x = image.permute({0, 3, 1, 2}).mul(2).sub_(1).contiguous();
                    return vae_.Encode(x.to(compute().device).to(compute().dtype))
                        .to(at::kCPU)
                        .to(at::kFloat)
                        .contiguous();
                  });
}

}  // namespace distorch::models
