#include "lib/serving/stored_handle.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

using nlohmann::json;

// Each field with its name, for both directions.
template <typename Spec, typename Visit>
void EachField(Spec& spec, Visit visit) {
  visit("unet_compute_device", spec.unet_compute_device);
  visit("unet_virtual_vram_gb", spec.unet_virtual_vram_gb);
  visit("unet_donor_device", spec.unet_donor_device);
  visit("clip_compute_device", spec.clip_compute_device);
  visit("clip_virtual_vram_gb", spec.clip_virtual_vram_gb);
  visit("clip_donor_device", spec.clip_donor_device);
  visit("vae_device", spec.vae_device);
  visit("unet_expert_mode_allocations", spec.unet_expert_mode_allocations);
  visit("clip_expert_mode_allocations", spec.clip_expert_mode_allocations);
  visit("high_precision_loras", spec.high_precision_loras);
  visit("eject_models", spec.eject_models);
  visit("weight_dtype", spec.weight_dtype);
  visit("lease_seconds", spec.lease_seconds);
  visit("reference_rounding", spec.reference_rounding);
  visit("execution", spec.execution);
}

// File names may be any bytes: an exception is no answer to them.
std::string Dump(const json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

json ToJsonObject(const LoadSpec& spec) {
  json out = {{"ckpt_name", spec.ckpt_name}};
  EachField(spec, [&out](const char* name, const auto& field) {
    if (field) out[name] = *field;
  });
  return out;
}

LoadSpec LoadFromJson(const json& in) {
  LoadSpec spec;
  in.at("ckpt_name").get_to(spec.ckpt_name);
  EachField(spec, [&in]<typename T>(const char* name, std::optional<T>& field) {
    if (in.contains(name)) field = in.at(name).get<T>();
  });
  return spec;
}

}  // namespace

void AddStep(StoredStep step, StoredHandle* stored) {
  const auto is_skip = [](const StoredStep& any) { return any.lora_name.empty(); };
  if (is_skip(step) && !stored->steps.empty() && is_skip(stored->steps.back()))
    stored->steps.pop_back();
  stored->steps.push_back(std::move(step));
}

std::string LoadToJson(const LoadSpec& load) { return Dump(ToJsonObject(load)); }

std::string ToJson(const StoredHandle& stored) {
  json steps = json::array();
  for (const StoredStep& step : stored.steps) {
    steps.push_back({{"lora_name", step.lora_name},
                     {"strength", step.strength},
                     {"stop_at_layer", step.stop_at_layer}});
  }
  const json out = {{"handle", stored.handle},
                    {"kind", stored.kind},
                    {"family", stored.family},
                    {"load", ToJsonObject(stored.load)},
                    {"fingerprint", stored.fingerprint},
                    {"root", stored.root},
                    {"base", stored.base},
                    {"request", stored.request},
                    {"devices", stored.split.devices},
                    {"assignment", stored.split.assignment},
                    {"unit_devices", stored.split.unit_devices},
                    {"steps", std::move(steps)}};
  return Dump(out);
}

absl::StatusOr<StoredHandle> StoredHandleFromJson(const std::string& text) {
  try {
    const json in = json::parse(text);
    StoredHandle stored;
    in.at("handle").get_to(stored.handle);
    in.at("kind").get_to(stored.kind);
    in.at("family").get_to(stored.family);
    stored.load = LoadFromJson(in.at("load"));
    in.at("fingerprint").get_to(stored.fingerprint);
    in.at("root").get_to(stored.root);
    in.at("base").get_to(stored.base);
    in.at("request").get_to(stored.request);
    in.at("devices").get_to(stored.split.devices);
    in.at("assignment").get_to(stored.split.assignment);
    in.at("unit_devices").get_to(stored.split.unit_devices);
    for (const json& step : in.at("steps")) {
      stored.steps.push_back({step.at("lora_name"), step.at("strength"), step.at("stop_at_layer")});
    }
    return stored;
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("no recipe of a handle: ", error.what()));
  }
}

}  // namespace distorch
