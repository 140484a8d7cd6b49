// One guided step on one simulated device and on two, a core each: what spreading the two halves of
// the guidance gains where the weights lie on both, and where the second device has none. Prints
// one JSON object.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lib/serving/daemon_core.h"
#include "tests/bench/bench_support.h"
#include "tests/support/core_client.h"

namespace distorch {
namespace {

struct Flags {
  std::string checkpoint, dtype = "fp32";
  int runs = 3, size = 256, threads = 1;
};

nlohmann::json TimeSteps(CoreClient& client, const LoadResult& loaded, const Flags& flags,
                         const std::string& parallel) {
  SampleSpec spec;
  spec.model = loaded.model;
  spec.options.steps = flags.runs + 1;
  spec.options.cfg = 7.0;
  spec.options.parallel = parallel;
  const int side = flags.size / 8;
  spec.latent.shape = {1, 4, side, side};
  spec.latent.data.assign(static_cast<size_t>(4 * side * side) * sizeof(float), '\0');
  spec.positive.id = OrDie(client.EncodeText({loaded.clip, "a photograph"})).conditioning_id;
  spec.negative.id = OrDie(client.EncodeText({loaded.clip, ""})).conditioning_id;
  std::vector<double> seconds;
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& step) {
    if (step.step > 1) seconds.push_back(step.seconds);  // the first warms up
  };
  OrDie(client.Sample(spec, std::make_shared<CancelToken>(), callbacks));
  return {{"median", Median(seconds)}, {"runs", seconds}};
}

void Run(const Flags& flags) {
  CoreOptions options;
  options.checkpoint_dirs = {std::filesystem::absolute(flags.checkpoint).parent_path()};
  options.compute_dtype = flags.dtype;
  options.threads = flags.threads;
  options.simulate_devices = "cuda:0=16GiB,cuda:1=16GiB";
  const std::unique_ptr<DaemonCore> core = OrDie(DaemonCore::Create(options, nullptr));
  CoreClient client(core.get());
  nlohmann::json out = {{"dtype", flags.dtype}, {"size", flags.size}, {"threads", flags.threads}};
  for (const char* const allocation : {"cuda:0,100%", "cuda:0,50%;cuda:1,50%"}) {
    LoadSpec spec;
    spec.ckpt_name = std::filesystem::path(flags.checkpoint).filename();
    spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cuda:0";
    spec.unet_expert_mode_allocations = allocation;
    const LoadResult loaded = OrDie(client.Load(spec));
    nlohmann::json& times = out["step_seconds"][allocation];
    times["one"] = TimeSteps(client, loaded, flags, "off");
    times["two"] = TimeSteps(client, loaded, flags, "cuda:1");
  }
  std::cout << out.dump() << "\n";
}

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) {
  distorch::Flags flags;
  CLI::App app("Times a guided step on one simulated device and on two");
  app.add_option("--checkpoint", flags.checkpoint, "its path")->required();
  app.add_option("--dtype", flags.dtype, "to compute in: fp32, bf16, fp16");
  app.add_option("--threads", flags.threads, "of each device");
  app.add_option("--runs", flags.runs, "timed steps of each, after one warm-up")
      ->check(CLI::Range(1, 100));
  app.add_option("--size", flags.size, "width and height in pixels")->check(CLI::Range(64, 4096));
  CLI11_PARSE(app, argc, argv);
  distorch::Run(flags);
}
