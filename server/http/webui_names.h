// WebUI's names of samplers and schedulers, and the reference's, which we have.
#ifndef SERVER_HTTP_WEBUI_NAMES_H_
#define SERVER_HTTP_WEBUI_NAMES_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace distorch {

struct WebuiSampler {
  std::string_view label;  // "DPM++ 2M"
  std::string_view name;   // "dpmpp_2m"
  // What the scheduler "Automatic" means with it.
  std::string_view scheduler = "normal";
};
std::span<const WebuiSampler> WebuiSamplers();

struct WebuiScheduler {
  std::string_view label;  // "SGM Uniform"
  std::string_view name;   // "sgm_uniform"
};
std::span<const WebuiScheduler> WebuiSchedulers();

struct SamplerChoice {
  std::string sampler, scheduler;
};
// Of WebUI's labels in any case, with or without the scheduler behind the sampler's ("DPM++ 2M
// Karras", as WebUI wrote it before 1.9); `scheduler` may be empty or "Automatic". Names that are
// not labels are taken for our own, which the core checks; the scheduler is then "normal" unless
// given.
SamplerChoice ChooseSampler(std::string_view sampler, std::string_view scheduler);
// The label of our sampler `name`, or the name when it has none.
std::string_view WebuiLabel(std::string_view name);

}  // namespace distorch

#endif  // SERVER_HTTP_WEBUI_NAMES_H_
