#include "lib/pipeline/two_sided_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/device/synchronize.h"

namespace distorch::pipeline {
namespace {

// Contexts of 77 and 154 tokens can share a batch where the model lets the shorter one be repeated;
// but a much longer one costs more than a second pass.
constexpr int64_t kMaxRepeats = 4;

at::Tensor Expand(const at::Tensor& t, int64_t batch) {
  if (!t.defined() || t.size(0) == batch) return t;
  std::vector<int64_t> sizes(static_cast<size_t>(t.dim()), -1);
  sizes[0] = batch;
  return t.expand(sizes);
}

// `first` then `second` as one conditioning of 2N items, or nothing when `model` cannot take them
// together.
std::optional<text::Conditioning> Join(const models::DiffusionModel& model,
                                       const text::Conditioning& first,
                                       const text::Conditioning& second, int64_t batch) {
  const std::optional<int64_t> length = JoinedLength(model, first, second);
  if (!length) return std::nullopt;
  auto repeat = [&](const at::Tensor& t) {
    return Expand(t, batch).repeat({1, *length / t.size(1), 1});
  };
  text::Conditioning joined = first;
  joined.cross_attention = at::cat({repeat(first.cross_attention), repeat(second.cross_attention)});
  if (first.pooled.defined())
    joined.pooled = at::cat({Expand(first.pooled, batch), Expand(second.pooled, batch)});
  if (first.concat.defined())
    joined.concat = at::cat({Expand(first.concat, batch), Expand(second.concat, batch)});
  return joined;
}

int64_t Items(const at::Tensor& x) { return x.size(0); }

void WarnOfMemory(const Team& team, const absl::Status& why) {
  if (!team.warn) return;
  team.warn(
      absl::StrCat("a device has too little memory to help, and is left out: ", why.message()));
}

}  // namespace

text::Conditioning SliceItems(const text::Conditioning& conditioning, int64_t begin, int64_t end) {
  text::Conditioning slice = conditioning;
  for (at::Tensor* part :
       {&slice.cross_attention, &slice.pooled, &slice.attention_mask, &slice.concat}) {
    if (part->defined() && part->size(0) > 1) *part = part->slice(0, begin, end);
  }
  return slice;
}

std::optional<int64_t> JoinedLength(const models::DiffusionModel& model,
                                    const text::Conditioning& first,
                                    const text::Conditioning& second) {
  if (first.concat.defined() != second.concat.defined() ||
      first.pooled.defined() != second.pooled.defined() || first.guidance != second.guidance ||
      first.size != second.size) {
    return std::nullopt;
  }
  const int64_t a = first.cross_attention.size(1), b = second.cross_attention.size(1);
  if (a != b && !model.context_may_repeat()) return std::nullopt;
  const int64_t length = std::lcm(a, b);
  if (length > kMaxRepeats * std::min(a, b)) return std::nullopt;
  return length;
}

// What a teammate is given, and what it makes of it. Shared with its job: the sampling waits for
// the job, but the job's last touch may come after that.
struct TwoSidedModel::Share {
  std::shared_ptr<const Member> member;
  std::vector<Piece> pieces;
  std::vector<at::Tensor> inputs;  // of the pieces, on the member's device
  std::vector<at::Tensor> results;
  absl::Status status;
  absl::Notification go, done;

  // Items [begin, end) of all batches in a row.
  void Take(const std::vector<Batch>& batches, int64_t begin, int64_t end) {
    int64_t first = 0;  // of the batch
    for (size_t i = 0; i < batches.size(); ++i) {
      const int64_t items = Items(batches[i].x);
      const Piece piece{i, batches[i].half, std::max(begin - first, int64_t{0}),
                        std::min(end - first, items)};
      if (piece.begin < piece.end) pieces.push_back(piece);
      first += items;
    }
    Bring(batches);
  }

  void Bring(const std::vector<Batch>& batches) {
    status = RunTorch([&] {
      inputs.clear();
      for (const Piece& piece : pieces) {
        inputs.push_back(batches[piece.batch]
                             .x.slice(0, piece.begin, piece.end)
                             .to(member->model->compute().device));
      }
      return absl::OkStatus();
    });
  }

  // Of all pieces, on the member's device.
  void Run(double sigma, const CancelToken& cancel) {
    if (!status.ok()) return;
    status = RunTorch([&]() -> absl::Status {
      for (size_t i = 0; i < pieces.size(); ++i) {
        RETURN_IF_ERROR(cancel.Check());
        results.push_back(member->model->Denoise(
            inputs[i], sigma,
            SliceItems(member->of(pieces[i].half), pieces[i].begin, pieces[i].end)));
      }
      return absl::OkStatus();
    });
  }
};

const text::Conditioning& TwoSidedModel::Member::of(Half half) const {
  if (half == Half::kBoth) return *joined;
  return half == Half::kPositive ? positive : negative;
}

absl::StatusOr<std::unique_ptr<TwoSidedModel>> TwoSidedModel::Create(
    const models::DiffusionModel& model, const Team& team, const text::Conditioning& positive,
    const text::Conditioning& negative, at::IntArrayRef latent_shape, const CancelToken& cancel) {
  const auto prepare = [&](const models::DiffusionModel& on, const Teammate* mate) {
    return RunTorchOr<std::shared_ptr<const Member>>([&] {
      Member member{&on, mate, {}, {}, {}};
      const int64_t height = latent_shape[2], width = latent_shape[3];
      member.positive = on.Prepare(positive, models::GuidanceSide::kPositive, height, width);
      member.negative = on.Prepare(negative, models::GuidanceSide::kNegative, height, width);
      member.joined = Join(on, member.negative, member.positive, latent_shape[0]);
      return std::make_shared<const Member>(std::move(member));
    });
  };
  auto both = absl::WrapUnique(new TwoSidedModel(team, cancel));
  ASSIGN_OR_RETURN(both->self_, prepare(model, nullptr));
  for (const Teammate& mate : team.mates) {
    auto member = prepare(*mate.model, &mate);
    if (!member.ok() && !absl::IsResourceExhausted(member.status())) return member.status();
    if (!member.ok()) WarnOfMemory(team, member.status());
    both->mates_.push_back(member.ok() ? *std::move(member) : nullptr);
  }
  return both;
}

absl::StatusOr<sampling::Predictions> TwoSidedModel::operator()(const at::Tensor& x, double sigma,
                                                                bool with_uncond) {
  RETURN_IF_ERROR(cancel_.Check());
  std::vector<Batch> batches;
  if (with_uncond && self_->joined) {
    batches = {{Half::kBoth, at::cat({x, x})}};
  } else {
    batches = {{Half::kPositive, x}};
    if (with_uncond) batches.push_back({Half::kNegative, x});
  }
  ASSIGN_OR_RETURN(std::vector<at::Tensor> denoised, Evaluate(batches, sigma));
  if (!with_uncond) return sampling::Predictions{std::move(denoised[0]), {}};
  if (batches.size() == 2)
    return sampling::Predictions{std::move(denoised[0]), std::move(denoised[1])};
  const std::vector<at::Tensor> halves = denoised[0].chunk(2);
  return sampling::Predictions{halves[1], halves[0]};
}

absl::StatusOr<std::vector<at::Tensor>> TwoSidedModel::Evaluate(const std::vector<Batch>& batches,
                                                                double sigma) {
  if (mates_.empty()) return Alone(batches, sigma);
  int64_t size = 0;
  for (const Batch& batch : batches) size += batch.x.numel();
  TeamTimes::Choice choice{TeamTimes::Way::kTogether, false};
  if (team_.times != nullptr) choice = team_.times->Next(size);
  const auto start = std::chrono::steady_clock::now();
  bool together = choice.way == TeamTimes::Way::kTogether;
  auto denoised = together ? Together(batches, sigma, &together) : Alone(batches, sigma);
  // A team whose devices were busy says nothing of how fast it is.
  const bool as_chosen = together == (choice.way == TeamTimes::Way::kTogether);
  if (choice.measure && as_chosen && denoised.ok()) {
    Synchronize(batches[0].x.device());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    team_.times->Record(size, choice.way, seconds.count());
  }
  return denoised;
}

absl::StatusOr<std::vector<at::Tensor>> TwoSidedModel::Alone(const std::vector<Batch>& batches,
                                                             double sigma) const {
  std::vector<at::Tensor> denoised;
  for (const Batch& batch : batches) {
    RETURN_IF_ERROR(cancel_.Check());
    denoised.push_back(self_->model->Denoise(batch.x, sigma, self_->of(batch.half)));
  }
  return denoised;
}

TwoSidedModel::Shares TwoSidedModel::Gather(int64_t items, double sigma) const {
  Shares shares = {std::make_shared<Share>()};
  shares[0]->member = self_;
  for (const auto& member : mates_) {
    if (static_cast<int64_t>(shares.size()) == items) break;
    auto share = std::make_shared<Share>();
    share->member = member;
    if (member == nullptr || !member->mate->try_run([share, sigma, &cancel = cancel_] {
          share->go.WaitForNotification();
          share->Run(sigma, cancel);
          share->done.Notify();
        })) {
      share->member = self_;
    }
    shares.push_back(std::move(share));
  }
  return shares;
}

absl::StatusOr<std::vector<at::Tensor>> TwoSidedModel::Together(const std::vector<Batch>& batches,
                                                                double sigma, bool* came) {
  int64_t items = 0;
  for (const Batch& batch : batches) items += Items(batch.x);
  const Shares shares = Gather(items, sigma);
  const auto is_own = [this](const auto& share) { return share->member == self_; };
  *came = !std::all_of(shares.begin(), shares.end(), is_own);
  // Where nobody insists on the team, a device alone is faster with the batch as a whole.
  if (!*came && team_.times != nullptr) return Alone(batches, sigma);
  const auto count = static_cast<int64_t>(shares.size());
  for (int64_t i = 0; i < count; ++i)
    shares[static_cast<size_t>(i)]->Take(batches, items * i / count, items * (i + 1) / count);
  // From here the first error, if any, is only told when nobody works on our tensors any more.
  for (const auto& share : shares) share->go.Notify();
  for (const auto& share : shares) {
    if (is_own(share)) share->Run(sigma, cancel_);
  }
  for (const auto& share : shares) {
    if (!is_own(share)) share->done.WaitForNotification();
  }

  std::vector<std::vector<at::Tensor>> parts(batches.size());
  for (const auto& share : shares) {
    if (!is_own(share) && absl::IsResourceExhausted(share->status)) Replace(*share, batches, sigma);
    RETURN_IF_ERROR(share->status);
    for (size_t i = 0; i < share->pieces.size(); ++i) {
      const size_t batch = share->pieces[i].batch;
      parts[batch].push_back(share->results[i].to(batches[batch].x.device()));
    }
  }
  std::vector<at::Tensor> denoised;
  for (std::vector<at::Tensor>& of_batch : parts)
    denoised.push_back(of_batch.size() == 1 ? std::move(of_batch[0]) : at::cat(of_batch));
  return denoised;
}

void TwoSidedModel::Replace(Share& share, const std::vector<Batch>& batches, double sigma) {
  WarnOfMemory(team_, share.status);
  std::replace(mates_.begin(), mates_.end(), share.member, std::shared_ptr<const Member>());
  share.member = self_;
  share.results.clear();
  share.Bring(batches);
  share.Run(sigma, cancel_);
}

}  // namespace distorch::pipeline
