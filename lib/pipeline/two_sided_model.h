// Both halves of classifier-free guidance over a diffusion model, on one device or on several.
#ifndef LIB_PIPELINE_TWO_SIDED_MODEL_H_
#define LIB_PIPELINE_TWO_SIDED_MODEL_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/models/diffusion_model.h"
#include "lib/pipeline/device_team.h"
#include "lib/sampling/guidance.h"
#include "lib/text/conditioning.h"

namespace distorch::pipeline {

// Items [begin, end) of a conditioning for a batch; parts that serve any batch stay whole.
text::Conditioning SliceItems(const text::Conditioning& conditioning, int64_t begin, int64_t end);

// Tokens of both conditionings as one batch of `model`; nullopt: each is evaluated for itself.
std::optional<int64_t> JoinedLength(const models::DiffusionModel& model,
                                    const text::Conditioning& first,
                                    const text::Conditioning& second);

// Evaluates both conditionings: in one batch where their lengths allow, and with the batch's items
// spread over the team's devices. Kernels round batches of another size otherwise: the shares
// depend on the team's size alone, so that results do not depend on which device was idle. One
// thread at a time.
class TwoSidedModel {
 public:
  // What is referred to must outlive the result. The conditionings are checked; latents are [batch,
  // channels, height, width]. LibTorch's errors. A teammate whose memory does not suffice is left
  // out, with a warning: here, and later.
  static absl::StatusOr<std::unique_ptr<TwoSidedModel>> Create(
      const models::DiffusionModel& model, const Team& team, const text::Conditioning& positive,
      const text::Conditioning& negative, at::IntArrayRef latent_shape, const CancelToken& cancel);

  // sampling::ConditionedModel's contract. CANCELLED and such by `cancel`, else LibTorch's errors.
  absl::StatusOr<sampling::Predictions> operator()(const at::Tensor& x, double sigma,
                                                   bool with_uncond);

 private:
  TwoSidedModel(const Team& team, const CancelToken& cancel) : team_(team), cancel_(cancel) {}

  enum class Half { kPositive, kNegative, kBoth };
  // One device's side.
  struct Member {
    const models::DiffusionModel* model = nullptr;
    const Teammate* mate = nullptr;  // null: the model's own device
    text::Conditioning positive, negative;
    std::optional<text::Conditioning> joined;

    const text::Conditioning& of(Half half) const;
  };
  // A batch to evaluate.
  struct Batch {
    Half half;
    at::Tensor x;
  };
  // A run of a batch's items.
  struct Piece {
    size_t batch;
    Half half;
    int64_t begin, end;
  };
  struct Share;

  // The denoised batches, on the model's device.
  absl::StatusOr<std::vector<at::Tensor>> Evaluate(const std::vector<Batch>& batches, double sigma);
  absl::StatusOr<std::vector<at::Tensor>> Alone(const std::vector<Batch>& batches,
                                                double sigma) const;
  // `*came`: whether any teammate had time.
  absl::StatusOr<std::vector<at::Tensor>> Together(const std::vector<Batch>& batches, double sigma,
                                                   bool* came);
  using Shares = std::vector<std::shared_ptr<Share>>;
  // A share for the device itself and for each teammate, as far as there are items, whoever has
  // time: the shares decide how results are rounded. Teammates that came wait to be given theirs;
  // the others' are the device's own.
  Shares Gather(int64_t items, double sigma) const;
  // Leaves the teammate out, for the rest of the sampling, and does its share.
  void Replace(Share& share, const std::vector<Batch>& batches, double sigma);

  const Team& team_;
  const CancelToken& cancel_;
  std::shared_ptr<const Member> self_;
  std::vector<std::shared_ptr<const Member>> mates_;  // null: left out
};

}  // namespace distorch::pipeline

#endif  // LIB_PIPELINE_TWO_SIDED_MODEL_H_
