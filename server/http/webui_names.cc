#include "server/http/webui_names.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace distorch {
namespace {

constexpr WebuiSampler kSamplers[] = {
    {"DPM++ 2M", "dpmpp_2m", "karras"},
    {"DPM++ SDE", "dpmpp_sde", "karras"},
    {"DPM++ 2M SDE", "dpmpp_2m_sde", "exponential"},
    {"DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun", "exponential"},
    {"DPM++ 2S a", "dpmpp_2s_ancestral", "karras"},
    {"DPM++ 3M SDE", "dpmpp_3m_sde", "exponential"},
    {"Euler a", "euler_ancestral"},
    {"Euler", "euler"},
    {"LMS", "lms"},
    {"Heun", "heun"},
    {"DPM2", "dpm_2", "karras"},
    {"DPM2 a", "dpm_2_ancestral", "karras"},
    {"DPM fast", "dpm_fast"},
    {"DPM adaptive", "dpm_adaptive"},
    {"DDIM", "ddim", "ddim_uniform"},
    {"UniPC", "uni_pc"},
    {"LCM", "lcm"},
    {"DDPM", "ddpm"},
};

constexpr WebuiScheduler kSchedulers[] = {
    {"Automatic", "automatic"},
    {"Uniform", "normal"},
    {"Karras", "karras"},
    {"Exponential", "exponential"},
    {"SGM Uniform", "sgm_uniform"},
    {"KL Optimal", "kl_optimal"},
    {"Simple", "simple"},
    {"Normal", "normal"},
    {"DDIM", "ddim_uniform"},
    {"Beta", "beta"},
    {"Linear Quadratic", "linear_quadratic"},
};

const WebuiSampler* FindSampler(std::string_view label) {
  for (const WebuiSampler& sampler : kSamplers) {
    if (absl::EqualsIgnoreCase(sampler.label, label)) return &sampler;
  }
  return nullptr;
}

}  // namespace

std::span<const WebuiSampler> WebuiSamplers() { return kSamplers; }

std::span<const WebuiScheduler> WebuiSchedulers() { return kSchedulers; }

SamplerChoice ChooseSampler(std::string_view sampler, std::string_view scheduler) {
  std::string_view schedule;
  if (!absl::EqualsIgnoreCase(scheduler, "automatic")) schedule = scheduler;
  for (const WebuiScheduler& known : kSchedulers) {
    if (absl::EqualsIgnoreCase(known.label, schedule)) schedule = known.name;
  }
  const WebuiSampler* found = FindSampler(sampler);
  for (const WebuiScheduler& known : kSchedulers) {
    if (found != nullptr) break;
    if (!absl::EndsWithIgnoreCase(sampler, known.label)) continue;
    const std::string_view front = sampler.substr(0, sampler.size() - known.label.size());
    found = FindSampler(absl::StripSuffix(front, " "));
    if (found != nullptr && schedule.empty()) schedule = known.name;
  }
  if (schedule.empty()) schedule = found == nullptr ? "normal" : found->scheduler;
  return {std::string(found == nullptr ? sampler : found->name), std::string(schedule)};
}

std::string_view WebuiLabel(std::string_view name) {
  for (const WebuiSampler& sampler : kSamplers) {
    if (sampler.name == name) return sampler.label;
  }
  return name;
}

}  // namespace distorch
