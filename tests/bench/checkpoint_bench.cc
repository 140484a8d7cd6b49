// Loads a checkpoint and times what users wait for: LoadCheckpoint, one classifier-free-guidance
// step, one VAE decode. Prints one JSON object of the shape that diffusers_step.py prints, so that
// compare.py can run both in turn.

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/serving/daemon_core.h"
#include "tests/bench/bench_support.h"
#include "tests/bench/op_profile.h"
#include "tests/support/core_client.h"
#include "tests/support/safetensors_writer.h"

namespace distorch {
namespace {

struct Flags {
  std::string checkpoint, dtype = "fp32";
  int threads = 0, runs = 5, size = 512;
  bool load_only = false, steps_only = false, profile = false;
};

nlohmann::json Summary(const std::vector<double>& seconds) {
  return {{"median", Median(seconds)}, {"runs", seconds}};
}

// A line of /proc/self/status, in bytes.
int64_t StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

int64_t WeightBytes(const LoadResult& loaded) {
  int64_t bytes = 0;
  for (const ComponentPlacement& component : loaded.placement) {
    for (const DeviceBytes& device : component.devices) bytes += device.measured_bytes;
  }
  return bytes;
}

HostTensor Latent(int size) {
  HostTensor latent;
  latent.shape = {1, 4, size / 8, size / 8};
  latent.data.assign(static_cast<size_t>(4 * (size / 8) * (size / 8)) * sizeof(float), '\0');
  return latent;
}

// From a warm page cache; the last load stays.
LoadResult TimeLoads(CoreClient& client, const std::string& ckpt_name, const Flags& flags,
                     nlohmann::json* out) {
  LoadSpec spec;
  spec.ckpt_name = ckpt_name;
  spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cpu";
  std::vector<double> seconds;
  LoadResult loaded;
  const int64_t before = StatusBytes("VmRSS");
  for (int i = flags.steps_only ? flags.runs : 0; i <= flags.runs; ++i) {
    OrDie(client.UnloadAll());
    const absl::Time start = absl::Now();
    loaded = OrDie(client.Load(spec));
    if (i > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  (*out)["load_seconds"] = Summary(seconds);
  (*out)["weight_bytes"] = WeightBytes(loaded);
  (*out)["peak_over_weights"] =
      static_cast<double>(StatusBytes("VmHWM") - before) / static_cast<double>(WeightBytes(loaded));
  return loaded;
}

// Both prompts of a guided step, as the peers encode them; never the same twice, which would be
// answered from memory.
void TimeTexts(CoreClient& client, const LoadResult& loaded, const Flags& flags,
               nlohmann::json* out) {
  std::vector<double> seconds;
  for (int i = 0; i <= flags.runs; ++i) {
    const absl::Time start = absl::Now();
    for (const char* prompt : {"a photograph", "a drawing"}) {
      OrDie(client.EncodeText({loaded.clip, absl::StrCat(prompt, " of ", i)}));
    }
    if (i > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  (*out)["text_seconds"] = Summary(seconds);
}

void TimeSteps(CoreClient& client, const LoadResult& loaded, const Flags& flags,
               nlohmann::json* out) {
  SampleSpec spec;
  spec.model = loaded.model;
  spec.options.steps = flags.runs + 1;
  spec.options.cfg = 7.0;
  spec.latent = Latent(flags.size);
  spec.positive.id = OrDie(client.EncodeText({loaded.clip, "a photograph"})).conditioning_id;
  spec.negative.id = OrDie(client.EncodeText({loaded.clip, ""})).conditioning_id;
  std::vector<double> seconds, processor;
  std::clock_t before = std::clock();
  InferCallbacks callbacks;
  callbacks.progress = [&](const StepProgress& step) {
    const std::clock_t now = std::clock();
    const double used = static_cast<double>(now - before) / CLOCKS_PER_SEC;
    before = now;
    if (step.step <= 1) return;  // the first warms up
    seconds.push_back(step.seconds);
    processor.push_back(used);
  };
  OrDie(client.Sample(spec, std::make_shared<CancelToken>(), callbacks));
  (*out)["step_seconds"] = Summary(seconds);
  (*out)["step_processor_seconds"] = Summary(processor);
}

void TimeDecodes(CoreClient& client, const LoadResult& loaded, const Flags& flags,
                 nlohmann::json* out) {
  DecodeLatentSpec spec;
  spec.vae = loaded.vae;
  spec.latent = Latent(flags.size);
  std::vector<double> seconds;
  for (int i = 0; i <= flags.runs; ++i) {
    const absl::Time start = absl::Now();
    OrDie(client.Decode(spec));
    if (i > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  (*out)["decode_seconds"] = Summary(seconds);
}

void PrintProfile(const char* part, const Flags& flags) {
  if (!flags.profile) return;
  std::cerr << part << ", the first included:\n";
  PrintOpProfile(std::cerr);
  ResetOpProfile();
}

// With "real:NAME", a sparse file of tests/golden/real_headers.json: its weights are zeros, which
// cost what others do. Removed at the end.
class Checkpoint {
 public:
  explicit Checkpoint(const std::string& name) : path_(std::filesystem::absolute(name)) {
    if (!absl::StartsWith(name, kReal)) return;
    folder_ = std::filesystem::temp_directory_path() / absl::StrCat("checkpoint_bench.", getpid());
    std::filesystem::create_directory(folder_);
    path_ = folder_ / "checkpoint.safetensors";
    const auto header = OrDie(RealHeader(DISTORCH_GOLDEN_DIR, name.substr(kReal.size())));
    OrDie(WriteSafetensors(path_, header));
  }
  ~Checkpoint() {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  static constexpr std::string_view kReal = "real:";
  std::filesystem::path folder_, path_;
};

void Run(const Flags& flags) {
  CoreOptions options;
  const Checkpoint checkpoint(flags.checkpoint);
  options.checkpoint_dirs = {checkpoint.path().parent_path()};
  options.compute_dtype = flags.dtype;
  options.threads = flags.threads;
  const std::unique_ptr<DaemonCore> core = OrDie(DaemonCore::Create(options, nullptr));
  CoreClient client(core.get());
  nlohmann::json out = {{"peer", "distorchd"}, {"dtype", flags.dtype}, {"threads", flags.threads}};
  const LoadResult loaded = TimeLoads(client, checkpoint.path().filename(), flags, &out);
  if (flags.profile) StartOpProfile();
  if (!flags.load_only) {
    TimeSteps(client, loaded, flags, &out);
    PrintProfile("steps", flags);
  }
  if (!flags.load_only && !flags.steps_only) {
    TimeTexts(client, loaded, flags, &out);
    TimeDecodes(client, loaded, flags, &out);
    PrintProfile("decodes", flags);
  }
  out["peak_bytes"] = StatusBytes("VmHWM");
  std::cout << out.dump() << "\n";
}

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) {
  distorch::Flags flags;
  CLI::App app("Times LoadCheckpoint, a guided step and a VAE decode of one checkpoint");
  app.add_option("--checkpoint", flags.checkpoint,
                 "its path; real:NAME: zeros of the shapes of tests/golden/real_headers.json")
      ->required();
  app.add_option("--dtype", flags.dtype, "to compute in: fp32, bf16, fp16");
  app.add_option("--threads", flags.threads, "0: all cores");
  app.add_option("--runs", flags.runs, "timed runs of each, after one warm-up")
      ->check(CLI::Range(1, 100));
  app.add_option("--size", flags.size, "width and height in pixels")->check(CLI::Range(64, 4096));
  app.add_flag("--load_only", flags.load_only, "time LoadCheckpoint alone");
  app.add_flag("--steps_only", flags.steps_only, "load once, time steps alone");
  app.add_flag("--profile", flags.profile, "print where the operators' time goes to stderr");
  CLI11_PARSE(app, argc, argv);
  distorch::Run(flags);
}
