// The half of translate.h that writes responses.
#include <utility>

#include "server/status.h"
#include "server/translate.h"
#include "server/translate_tensor.h"

namespace distorch {
namespace {

void Write(const DeviceBytes& in, v1::DeviceBytes* out) {
  out->set_device(in.device);
  out->set_planned_bytes(in.planned_bytes);
  out->set_measured_bytes(in.measured_bytes);
  out->set_blocks(in.blocks);
}

void Write(const Placement& in, v1::Placement* out) {
  for (const ComponentPlacement& component : in) {
    v1::ComponentPlacement* c = out->add_components();
    c->set_component(component.component);
    c->set_compute_device(component.compute_device);
    c->set_allocation(component.allocation);
    for (const DeviceBytes& device : component.devices) Write(device, c->add_devices());
    c->mutable_units()->insert(component.units.begin(), component.units.end());
    for (const BlockPlacement& block : component.blocks) {
      v1::BlockPlacement* b = c->add_blocks();
      b->set_name(CleanUtf8(block.name));
      b->set_device(block.device);
      b->set_bytes(block.bytes);
    }
  }
}

void Write(const DenoiserInfo& in, v1::DenoiserInfo* out) {
  out->set_flow(in.flow);
  out->set_sigma_min(in.sigma_min);
  out->set_sigma_max(in.sigma_max);
  out->set_latent_channels(static_cast<int32_t>(in.latent_channels));
  out->set_latent_scale(in.latent_scale);
  out->mutable_latent_mean()->Assign(in.latent_mean.begin(), in.latent_mean.end());
  out->mutable_latent_deviation()->Assign(in.latent_deviation.begin(), in.latent_deviation.end());
  out->set_concat_channels(static_cast<int32_t>(in.concat_channels));
  out->set_concat_in_model_space(in.concat_in_model_space);
}

void Write(HostConditioning in, v1::Conditioning* out) {
  ToProto(std::move(in.cross_attention), out->mutable_cross_attention());
  if (in.pooled.has_value()) ToProto(*std::move(in.pooled), out->mutable_pooled());
  if (in.attention_mask.has_value())
    ToProto(*std::move(in.attention_mask), out->mutable_attention_mask());
  if (in.concat.has_value()) ToProto(*std::move(in.concat), out->mutable_concat());
  if (in.guidance.has_value()) out->set_guidance(*in.guidance);
  if (in.size.has_value()) {
    v1::SizeConditioning* size = out->mutable_size();
    size->set_width(in.size->width);
    size->set_height(in.size->height);
    size->set_crop_w(in.size->crop_w);
    size->set_crop_h(in.size->crop_h);
    size->set_target_width(in.size->target_width);
    size->set_target_height(in.size->target_height);
    if (in.size->aesthetic_score.has_value()) size->set_aesthetic_score(*in.size->aesthetic_score);
  }
}

}  // namespace

void ToProto(const std::vector<DeviceInfo>& devices, v1::ListDevicesResponse* out) {
  for (const DeviceInfo& in : devices) {
    v1::DeviceInfo* device = out->add_devices();
    device->set_name(in.name);
    device->set_kind(in.kind);
    device->set_description(CleanUtf8(in.description));
    device->set_total_bytes(in.total_bytes);
    device->set_free_bytes(in.free_bytes);
    device->set_weights_bytes(in.weights_bytes);
    device->set_reserved_bytes(in.reserved_bytes);
    device->set_uuid(in.uuid);
    device->set_staging_bytes(in.staging_bytes);
    device->set_activation_bytes(in.activation_bytes);
    device->set_queue_length(in.queue_length);
  }
}

void ToProto(const std::vector<CheckpointInfo>& checkpoints, v1::ListCheckpointsResponse* out) {
  for (const CheckpointInfo& in : checkpoints) {
    v1::CheckpointInfo* checkpoint = out->add_checkpoints();
    checkpoint->set_ckpt_name(CleanUtf8(in.ckpt_name));
    checkpoint->set_bytes(in.bytes);
    checkpoint->set_format(in.format);
    checkpoint->set_family(in.family);
    checkpoint->set_error(CleanUtf8(in.error));
  }
}

void ToProto(const std::vector<ModelInfo>& models, v1::ListModelsResponse* out) {
  for (const ModelInfo& in : models) {
    v1::ModelInfo* model = out->add_models();
    model->set_handle(in.handle);
    model->set_kind(in.kind);
    model->set_ckpt_name(CleanUtf8(in.ckpt_name));
    model->set_family(in.family);
    model->set_state(in.state);
    model->set_in_use(in.in_use);
    for (const DeviceBytes& device : in.devices) Write(device, model->add_devices());
  }
}

void ToProto(const std::vector<LinkInfo>& links, v1::ListLinksResponse* out) {
  for (const LinkInfo& in : links) {
    v1::LinkInfo* link = out->add_links();
    link->set_from(in.from);
    link->set_to(in.to);
    link->set_bytes_per_second(in.bytes_per_second);
    link->set_latency_seconds(in.latency_seconds);
    link->set_simulated(in.simulated);
    link->set_bytes(in.bytes);
    link->set_exposed_seconds(in.exposed_seconds);
    link->set_overlapped_seconds(in.overlapped_seconds);
  }
}

void ToProto(const CheckpointPlan& plan, v1::PlanCheckpointResponse* out) {
  out->set_family(plan.family);
  Write(plan.placement, out->mutable_placement());
  out->set_fits(plan.fits);
  out->set_reason(CleanUtf8(plan.reason));
  if (plan.predicted_step_seconds > 0)
    out->set_predicted_seconds_per_step(plan.predicted_step_seconds);
}

void ToProto(const LoadProgress& progress, v1::LoadCheckpointEvent* out) {
  v1::LoadProgress* p = out->mutable_progress();
  p->set_phase(progress.phase);
  p->set_bytes_done(progress.bytes_done);
  p->set_bytes_total(progress.bytes_total);
}

void ToProto(const LoadResult& result, v1::LoadCheckpointResponse* out) {
  out->set_model(result.model);
  out->set_clip(result.clip);
  out->set_vae(result.vae);
  out->set_family(result.family);
  Write(result.placement, out->mutable_placement());
  if (result.predicted_step_seconds > 0)
    out->set_predicted_seconds_per_step(result.predicted_step_seconds);
  if (result.denoiser.has_value()) Write(*result.denoiser, out->mutable_denoiser());
  out->mutable_phase_seconds()->insert(result.phase_seconds.begin(), result.phase_seconds.end());
}

void ToProto(const ApplyLoraResult& result, v1::ApplyLoraResponse* out) {
  out->set_model(result.model);
  out->set_clip(result.clip);
  out->set_patched(result.patched);
  for (const std::string& key : result.unmatched_keys) out->add_unmatched_keys(CleanUtf8(key));
  out->set_unmatched_count(result.unmatched_count);
}

void ToProto(const UnloadReceipt& receipt, v1::UnloadResponse* out) {
  for (const auto& [device, bytes] : receipt.freed_bytes) {
    v1::DeviceFreed* freed = out->add_freed();
    freed->set_device(device);
    freed->set_bytes(bytes);
  }
  out->set_handles_closed(receipt.handles_closed);
}

void ToProto(EncodeTextResult result, v1::EncodeTextResponse* out) {
  out->set_conditioning_id(result.conditioning_id);
  for (std::string& warning : result.warnings) out->add_warnings(std::move(warning));
  Write(std::move(result.conditioning), out->mutable_conditioning());
}

void ToProto(const QueueProgress& progress, v1::QueueProgress* out) {
  out->set_position(progress.position);
  if (progress.seconds > 0) out->set_predicted_seconds(progress.seconds);
}

void ToProto(const StepProgress& progress, v1::StepProgress* out) {
  out->set_step(progress.step);
  out->set_steps(progress.steps);
  out->set_seconds(progress.seconds);
  if (!progress.preview_png.empty()) out->set_preview_png(progress.preview_png);
}

void ToProto(HostTensor denoised, v1::DenoiseResponse* out) {
  ToProto(std::move(denoised), out->mutable_denoised());
}

void ToProto(DecodeLatentResult result, v1::DecodeLatentResponse* out) {
  if (result.png.empty()) ToProto(std::move(result.images), out->mutable_images());
  for (std::string& png : result.png) out->add_png(std::move(png));
}

void ToProto(HostTensor latent, v1::EncodeImageResponse* out) {
  ToProto(std::move(latent), out->mutable_latent());
}

void ToProto(InferResult result, v1::InferResult* out) {
  for (std::string& png : result.png) out->add_png(std::move(png));
  out->set_seed(result.seed);
  for (std::string& warning : result.warnings) out->add_warnings(std::move(warning));
  out->mutable_phase_seconds()->insert(result.phase_seconds.begin(), result.phase_seconds.end());
}

}  // namespace distorch
