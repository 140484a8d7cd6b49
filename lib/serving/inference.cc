#include "lib/serving/inference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/sha256.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_status.h"
#include "lib/pipeline/image_codec.h"
#include "lib/pipeline/pixels.h"
#include "lib/pipeline/png_codec.h"
#include "lib/pipeline/sample_latent.h"
#include "lib/pipeline/vae.h"
#include "lib/serving/infer_job.h"
#include "lib/serving/prompt_embeddings.h"
#include "lib/serving/sampling_request.h"
#include "lib/serving/step_times.h"
#include "lib/serving/tensor_convert.h"

namespace distorch {
namespace {

constexpr int64_t kConditioningCacheBytes = 256 << 20;
constexpr int64_t kMaxImageSide = 16384;

// Equal texts on equal encoders have equal ids, whichever replica is asked, as long as the
// embeddings that the text names are equal, too.
absl::StatusOr<std::string> ConditioningId(const Pin& clip, const std::string& text,
                                           const PromptEmbeddings& embeddings) {
  Sha256 hash;
  hash.Update(absl::StrCat(clip.handle(), "\n", clip.stop_at_layer(), "\n", embeddings.identity(),
                           "\n", text));
  ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  return absl::StrCat("cond-", digest.substr(0, 32));
}

absl::StatusOr<at::Tensor> ToImages(const EncodeImageSpec& spec, int64_t at_least) {
  at::Tensor images;
  if (spec.pixels) {
    ASSIGN_OR_RETURN(images, ToTorch("pixels", *spec.pixels, 4));
    if (images.size(3) != 3) {
      return absl::InvalidArgumentError(
          absl::StrCat("pixels: ", images.size(3), " channels, expected 3 (shape [N, H, W, 3])"));
    }
  } else {
    auto decoded = DecodeImage(spec.encoded);
    if (!decoded.ok()) return Within("encoded", decoded.status());
    images = pipeline::FromImage8(*decoded);
  }
  const int64_t height = images.size(1), width = images.size(2);
  if (std::min(height, width) < at_least || std::max(height, width) > kMaxImageSide) {
    return absl::InvalidArgumentError(absl::StrCat("image: ", width, "x", height,
                                                   " is out of range; allowed: ", at_least, " to ",
                                                   kMaxImageSide, " a side"));
  }
  return images;
}

absl::StatusOr<at::Tensor> ToLatent(std::string_view field, const HostTensor& tensor,
                                    int64_t channels) {
  ASSIGN_OR_RETURN(at::Tensor latent, ToTorch(field, tensor, 4));
  if (latent.size(1) != channels) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", latent.size(1), " channels, expected ", channels,
                     " (shape [batch, ", channels, ", height/8, width/8])"));
  }
  return latent;
}

// What phases of a kind on a component take is learned under.
std::string CostKey(const Phase& phase, const Pin& pin) {
  return absl::StrCat(phase.name, "\n", pin->base_handle);
}

// Sample's inputs but for the conditionings.
absl::StatusOr<pipeline::SampleInputs> ToInputs(const SampleSpec& spec,
                                                const models::DiffusionModel& model) {
  pipeline::SampleInputs inputs;
  inputs.cfg = spec.options.cfg;
  ASSIGN_OR_RETURN(inputs.args, ToSampleArgs(spec.options, spec.sigmas));
  ASSIGN_OR_RETURN(inputs.latent, ToLatent("latent", spec.latent, model.latent_format().channels));
  if (spec.noise) {
    ASSIGN_OR_RETURN(inputs.noise, ToTorch("noise", *spec.noise, 4));
  }
  if (spec.noise_mask) {
    const size_t rank = std::clamp<size_t>(spec.noise_mask->shape.size(), 2, 4);
    ASSIGN_OR_RETURN(inputs.noise_mask, ToTorch("noise_mask", *spec.noise_mask, rank));
  }
  return inputs;
}

absl::StatusOr<HostTensor> RunDenoise(const models::DiffusionModel& model, const at::Tensor& x,
                                      const std::vector<double>& sigma,
                                      const text::Conditioning& conditioning,
                                      const CancelToken& cancel) {
  return RunTorchOr<HostTensor>([&]() -> absl::StatusOr<HostTensor> {
    const at::Tensor on_device = x.to(model.compute().device);
    const text::Conditioning prepared =
        model.Prepare(conditioning, models::GuidanceSide::kPositive, x.size(2), x.size(3));
    const bool equal =
        std::all_of(sigma.begin(), sigma.end(), [&](double s) { return s == sigma.front(); });
    if (equal) return FromTorch(model.Denoise(on_device, sigma.front(), prepared));
    // Items at levels of their own are evaluated one by one.
    std::vector<at::Tensor> items;
    for (int64_t i = 0; i < x.size(0); ++i) {
      RETURN_IF_ERROR(cancel.Check());
      text::Conditioning own = prepared;
      for (at::Tensor* part :
           {&own.cross_attention, &own.pooled, &own.attention_mask, &own.concat}) {
        if (part->defined() && part->size(0) > 1) *part = part->slice(0, i, i + 1);
      }
      items.push_back(
          model.Denoise(on_device.slice(0, i, i + 1), sigma[static_cast<size_t>(i)], own));
    }
    return FromTorch(at::cat(items));
  });
}

absl::Status CheckSigmas(const std::vector<double>& sigma, int64_t batch) {
  if (sigma.size() != 1 && static_cast<int64_t>(sigma.size()) != batch) {
    return absl::InvalidArgumentError(
        absl::StrCat("sigma: ", sigma.size(), " values, expected 1 or the batch's ", batch));
  }
  for (double s : sigma) {
    if (!(s > 0) || !(s < 1e9))
      return absl::InvalidArgumentError(
          absl::StrCat("sigma: ", s, " is out of range; allowed: above 0"));
  }
  return absl::OkStatus();
}

}  // namespace

Inference::Inference(std::vector<DeviceId> devices, Registry* registry, PhaseRunner* runner,
                     const InferServices& services)
    : devices_(std::move(devices)),
      registry_(registry),
      runner_(runner),
      services_(services),
      conditionings_(kConditioningCacheBytes) {}

DeviceId Inference::ComputeDevice(const Pin& pin) const {
  return devices_[DeviceIndex(pin->component->compute().device, devices_.size())];
}

absl::StatusOr<text::Conditioning> Inference::Resolve(std::string_view field,
                                                      const ConditioningRef& ref) {
  if (!ref.id.empty()) return conditionings_.Get(absl::StrCat(field, "_id"), ref.id);
  if (ref.value) return ToTorch(field, *ref.value);
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": missing; send a conditioning or the id of one from EncodeText"));
}

Phase Inference::NewPhase(std::string name, const Pin& pin, double units) const {
  Phase phase{std::move(name), ComputeDevice(pin), nullptr, {}};
  if (const auto seconds = costs_.Seconds(CostKey(phase, pin), units))
    phase.forecast = {*seconds, /*measured=*/true};
  return phase;
}

std::vector<PhaseMemory> Inference::DecodeWays(const Pin& vae, int64_t height, int64_t width,
                                               int64_t tile_size) const {
  return VaeWays(&DecodeMemory, vae, height, width, tile_size);
}

std::vector<PhaseMemory> Inference::EncodeWays(const Pin& vae, int64_t height, int64_t width,
                                               int64_t tile_size) const {
  return VaeWays(&EncodeMemory, vae, height, width, tile_size);
}

std::vector<PhaseMemory> Inference::VaeWays(VaeMemory memory, const Pin& vae, int64_t height,
                                            int64_t width, int64_t tile_size) const {
  const auto way = [&](int64_t tile) {
    return memory(*vae, ComputeDevice(vae), height, width, tile);
  };
  if (tile_size > 0) return {way(tile_size)};
  return {way(0), way(pipeline::kFallbackTile)};
}

PhaseMemory Inference::SamplingMemoryOf(const Pin& model, const pipeline::SampleInputs& inputs,
                                        const std::string& parallel, int preview_every) const {
  const bool spread = services_.teams->MaySpread(parallel);
  return SamplingMemory(
      *model, ComputeDevice(model), devices_, inputs, spread,
      absl::StrCat(preview_every > 0 ? "previews" : "no previews", spread ? ", spread" : ""));
}

absl::AnyInvocable<absl::Status()> Inference::Timed(const Phase& phase, const Pin& pin,
                                                    double units, CancelTokenPtr cancel, Ways ways,
                                                    WayWork work) {
  return [this, key = CostKey(phase, pin), units, cancel = std::move(cancel),
          ways = std::move(ways), work = std::move(work)]() mutable {
    absl::Time start;  // of the run that succeeded
    const absl::Status status = RunInAWay(ways(), *cancel, [&](size_t way) {
      start = absl::Now();
      return work(way);
    });
    if (status.ok()) costs_.Learn(key, units, absl::ToDoubleSeconds(absl::Now() - start));
    return status;
  };
}

absl::Status Inference::RunInAWay(const std::vector<PhaseMemory>& ways, const CancelToken& cancel,
                                  absl::FunctionRef<absl::Status(size_t way)> work) {
  for (size_t way = 0;; ++way) {
    const absl::Status status =
        services_.activations->Run(ways[way], cancel, [&] { return work(way); });
    if (!absl::IsResourceExhausted(status) || way + 1 == ways.size()) return status;
    const std::string why(status.message());
    services_.observer->Warning(absl::StrCat(
        "no memory to ", ways[way].key.phase, " an image at once, going on by tiles of ",
        pipeline::kFallbackTile, " pixels: ", why.substr(0, why.find('\n'))));
  }
}

template <typename T>
void Inference::RunOne(OnePhase what, Pin pin,
                       absl::AnyInvocable<absl::StatusOr<T>(const Pin&, size_t way)> work,
                       CancelTokenPtr cancel, InferCallbacks callbacks, Done<T> done) {
  auto result = std::make_shared<absl::StatusOr<T>>(absl::UnknownError("not run"));
  PhasedRequest request{pin->family,
                        what.priority,
                        {},
                        std::move(cancel),
                        std::move(callbacks.phase),
                        std::move(callbacks.queue)};
  Phase phase = NewPhase(std::move(what.name), pin, what.units);
  auto pinned = std::make_shared<const Pin>(std::move(pin));
  phase.work = Timed(
      phase, *pinned, what.units, request.cancel, [ways = std::move(what.ways)] { return ways; },
      [pinned, work = std::move(work), result](size_t way) mutable {
        *result = work(*pinned, way);
        return result->status();
      });
  pinned.reset();
  if (what.forecast) phase.forecast = *what.forecast;
  request.phases.push_back(std::move(phase));
  runner_->Run(std::move(request), [result, done = std::move(done)](const absl::Status& status,
                                                                    const PhaseSeconds&) mutable {
    if (!status.ok()) return done(status);
    done(*std::move(*result));
  });
}

void Inference::EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel,
                           Done<EncodeTextResult> done) {
  absl::StatusOr<Pin> pin = registry_->Acquire("clip", spec.clip, ComponentKind::kClip, cancel);
  absl::Status status = pin.status();
  status.Update(CheckPrompt("text", spec.text));
  if (!status.ok()) return done(status);

  OnePhase phase{"text"};
  phase.ways = {TextMemory(**pin, ComputeDevice(*pin), spec.text.size())};
  auto work = [this, text = spec.text](const Pin& pin, size_t) -> absl::StatusOr<EncodeTextResult> {
    PromptEmbeddings embeddings(services_.embeddings);
    ASSIGN_OR_RETURN(text::Conditioning conditioning,
                     pin->clip().Encode(text, pin.stop_at_layer(), &embeddings));
    EncodeTextResult result;
    result.warnings = embeddings.warnings();
    ASSIGN_OR_RETURN(result.conditioning_id, ConditioningId(pin, text, embeddings));
    result.conditioning = FromTorch(conditioning);
    conditionings_.Put(result.conditioning_id, std::move(conditioning));
    return result;
  };
  RunOne<EncodeTextResult>(std::move(phase), *std::move(pin), std::move(work), std::move(cancel),
                           {}, std::move(done));
}

void Inference::Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                       Done<HostTensor> done) {
  absl::StatusOr<Pin> pin = registry_->Acquire("model", spec.model, ComponentKind::kModel, cancel);
  if (!pin.ok()) return done(pin.status());
  absl::StatusOr<pipeline::SampleInputs> inputs = ToInputs(spec, (*pin)->model());
  absl::Status status = inputs.status();
  status.Update(services_.teams->Check(spec.options.parallel));
  if (!status.ok()) return done(status);
  absl::StatusOr<text::Conditioning> positive = Resolve("positive", spec.positive);
  if (!positive.ok()) return done(positive.status());
  absl::StatusOr<text::Conditioning> negative = Resolve("negative", spec.negative);
  if (!negative.ok()) return done(negative.status());
  inputs->positive = *std::move(positive);
  if (spec.options.guidance) inputs->positive.guidance = spec.options.guidance;
  inputs->negative = *std::move(negative);

  OnePhase phase{"sample", 1, spec.priority, ForecastSampling(**pin, *inputs), {}};
  phase.ways = {SamplingMemoryOf(*pin, *inputs, spec.options.parallel, spec.preview_every)};
  auto work = [this, inputs = *std::move(inputs), cancel, callbacks,
               parallel = spec.options.parallel, preview_every = spec.preview_every](
                  const Pin& pin, size_t) -> absl::StatusOr<HostTensor> {
    const models::DiffusionModel& model = pin->model();
    StepTimes times;
    const auto on_step =
        times.Around(ReportSteps(callbacks, preview_every, model.latent_format(),
                                 services_.preview_decoders, services_.observer, pin->family));
    ASSIGN_OR_RETURN(const pipeline::Team team, services_.teams->For(*pin, parallel));
    ASSIGN_OR_RETURN(const at::Tensor latent,
                     pipeline::SampleLatent(model, inputs, *cancel, on_step, team));
    if (team.mates.empty()) times.Teach(*pin, inputs);
    return FromTorch(latent);
  };
  RunOne<HostTensor>(std::move(phase), *std::move(pin), std::move(work), cancel,
                     std::move(callbacks), std::move(done));
}

void Inference::Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) {
  absl::StatusOr<Pin> pin = registry_->Acquire("model", spec.model, ComponentKind::kModel, cancel);
  if (!pin.ok()) return done(pin.status());
  absl::StatusOr<at::Tensor> x = ToLatent("x", spec.x, (*pin)->model().latent_format().channels);
  if (!x.ok()) return done(x.status());
  absl::StatusOr<text::Conditioning> conditioning = ToTorch("conditioning", spec.conditioning);
  if (!conditioning.ok()) return done(conditioning.status());
  absl::Status status =
      (*pin)->model().CheckConditioning(*conditioning, x->size(0), x->size(2), x->size(3));
  status.Update(CheckSigmas(spec.sigma, x->size(0)));
  if (!status.ok()) return done(status);

  OnePhase phase{"denoise", static_cast<double>(x->numel())};
  models::StepSize size;
  size.height = x->size(2);
  size.width = x->size(3);
  size.context = conditioning->cross_attention.size(1);
  const bool one_by_one =
      std::ranges::adjacent_find(spec.sigma, std::not_equal_to<>()) != spec.sigma.end();
  size.batch = one_by_one ? 1 : x->size(0);
  phase.ways = {DenoiseMemory(**pin, ComputeDevice(*pin), devices_, size)};
  auto work = [x = *std::move(x), sigma = spec.sigma, conditioning = *std::move(conditioning),
               cancel](const Pin& pin, size_t) {
    return RunDenoise(pin->model(), x, sigma, conditioning, *cancel);
  };
  RunOne<HostTensor>(std::move(phase), *std::move(pin), std::move(work), cancel, {},
                     std::move(done));
}

void Inference::DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                             Done<DecodeLatentResult> done) {
  if (absl::Status status = CheckTileSize(spec.tile_size); !status.ok()) return done(status);
  absl::StatusOr<Pin> pin = registry_->Acquire("vae", spec.vae, ComponentKind::kVae, cancel);
  if (!pin.ok()) return done(pin.status());
  absl::StatusOr<at::Tensor> latent =
      ToLatent("latent", spec.latent, (*pin)->vae().latent_channels());
  if (!latent.ok()) return done(latent.status());

  OnePhase phase{"decode", static_cast<double>(latent->numel())};
  phase.ways = DecodeWays(*pin, latent->size(2), latent->size(3), spec.tile_size);
  auto work = [latent = *std::move(latent), as_png = spec.as_png, tile_size = spec.tile_size,
               cancel](const Pin& pin, size_t way) -> absl::StatusOr<DecodeLatentResult> {
    ASSIGN_OR_RETURN(const at::Tensor images,
                     pipeline::DecodeLatents(pin->vae(), latent, {tile_size, way > 0}, *cancel));
    DecodeLatentResult result;
    if (!as_png) {
      result.images = FromTorch(images);
      return result;
    }
    for (int64_t i = 0; i < images.size(0); ++i) {
      ASSIGN_OR_RETURN(std::string png, EncodePng(pipeline::ToImage8(images[i]), {}));
      result.png.push_back(std::move(png));
    }
    return result;
  };
  RunOne<DecodeLatentResult>(std::move(phase), *std::move(pin), std::move(work), cancel, {},
                             std::move(done));
}

void Inference::EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel,
                            Done<HostTensor> done) {
  if (absl::Status status = CheckTileSize(spec.tile_size); !status.ok()) return done(status);
  absl::StatusOr<Pin> pin = registry_->Acquire("vae", spec.vae, ComponentKind::kVae, cancel);
  if (!pin.ok()) return done(pin.status());
  absl::StatusOr<at::Tensor> images = ToImages(spec, (*pin)->vae().downscale());
  if (!images.ok()) return done(images.status());

  OnePhase phase{"encode", static_cast<double>(images->numel())};
  phase.ways = EncodeWays(*pin, images->size(1), images->size(2), spec.tile_size);
  auto work = [images = *std::move(images), tile_size = spec.tile_size, cancel](
                  const Pin& pin, size_t way) -> absl::StatusOr<HostTensor> {
    ASSIGN_OR_RETURN(const at::Tensor latent,
                     pipeline::EncodeImages(pin->vae(), images, {tile_size, way > 0}, *cancel));
    return FromTorch(latent);
  };
  RunOne<HostTensor>(std::move(phase), *std::move(pin), std::move(work), cancel, {},
                     std::move(done));
}

void Inference::Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                      Done<InferResult> done) {
  absl::StatusOr<Pins> pins = Acquire(spec, cancel);
  if (!pins.ok()) return done(pins.status());
  Infer(spec, *std::move(pins), std::move(cancel), std::move(callbacks), std::move(done));
}

absl::StatusOr<Inference::Pins> Inference::Acquire(const InferSpec& spec,
                                                   const CancelTokenPtr& cancel) {
  Pins pins;
  ASSIGN_OR_RETURN(pins.model,
                   registry_->Acquire("model", spec.model, ComponentKind::kModel, cancel));
  ASSIGN_OR_RETURN(pins.clip, registry_->Acquire("clip", spec.clip, ComponentKind::kClip, cancel));
  ASSIGN_OR_RETURN(pins.vae, registry_->Acquire("vae", spec.vae, ComponentKind::kVae, cancel));
  return pins;
}

void Inference::Infer(const InferSpec& spec, Pins pins, CancelTokenPtr cancel,
                      InferCallbacks callbacks, Done<InferResult> done) {
  auto created = InferJob::Create(spec, std::move(pins.model), std::move(pins.clip),
                                  std::move(pins.vae), cancel, callbacks, services_);
  if (!created.ok()) return done(created.status());
  std::shared_ptr<InferJob> job = *std::move(created);
  auto result = std::make_shared<InferResult>();
  result->seed = spec.options.seed;

  PhasedRequest request{
      job->model()->family,      spec.priority, {}, cancel, std::move(callbacks.phase),
      std::move(callbacks.queue)};
  const auto add = [&](const char* name, const Pin& pin, double units, Ways ways, WayWork work) {
    Phase phase = NewPhase(name, pin, units);
    phase.work = Timed(phase, pin, units, cancel, std::move(ways), std::move(work));
    request.phases.push_back(std::move(phase));
  };
  constexpr double kPrompts = 2, kChannels = 3;
  const size_t prompt_bytes = std::max(spec.prompt.size(), spec.negative_prompt.size());
  add(
      "text", job->clip(), kPrompts,
      [this, job, prompt_bytes] {
        return std::vector{TextMemory(*job->clip(), ComputeDevice(job->clip()), prompt_bytes)};
      },
      [job](size_t) { return job->EncodePrompts(); });
  if (job->has_init_image()) {
    add(
        "encode", job->vae(), kChannels * spec.width * spec.height,
        [this, job, height = spec.height, width = spec.width, tile_size = spec.tile_size] {
          return EncodeWays(job->vae(), height, width, tile_size);
        },
        [job](size_t way) { return job->EncodeInitImage(way > 0); });
  }
  add(
      "sample", job->model(), 1,
      [this, job, parallel = spec.options.parallel, preview_every = spec.preview_every] {
        return std::vector{SamplingMemoryOf(job->model(), job->inputs(), parallel, preview_every)};
      },
      [job](size_t) { return job->Sample(); });
  request.phases.back().forecast = ForecastSampling(*job->model(), job->inputs());
  add(
      "decode", job->vae(), static_cast<double>(job->inputs().latent.numel()),
      [this, job, tile_size = spec.tile_size] {
        if (!job->decodes()) return std::vector{PhaseMemory()};
        const at::Tensor& latent = job->inputs().latent;
        return DecodeWays(job->vae(), latent.size(2), latent.size(3), tile_size);
      },
      [job, result](size_t way) {
        const absl::Status status = job->Decode(way > 0);
        result->png = job->TakePng();
        result->pixels = job->TakePixels();
        result->latent = job->TakeLatent();
        result->warnings = job->warnings();
        return status;
      });
  job.reset();  // the phases alone own it, and with it the pins
  runner_->Run(std::move(request),
               [result, done = std::move(done)](const absl::Status& status,
                                                const PhaseSeconds& seconds) mutable {
                 if (!status.ok()) return done(status);
                 result->phase_seconds = seconds;
                 done(std::move(*result));
               });
}

}  // namespace distorch
