// Times ApplyLora: a rank-32 adapter of the UNet and both text encoders (162 MiB) on a loaded
// checkpoint of SDXL's real size, which is sparse. Target: under 0.5 s. Prints one JSON object.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/serving/daemon_core.h"
#include "tests/bench/bench_support.h"
#include "tests/support/core_client.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

constexpr int64_t kRank = 32;
constexpr absl::string_view kUNet = "model.diffusion_model.";
constexpr absl::string_view kClipL = "conditioner.embedders.0.transformer.";
constexpr absl::string_view kClipG = "conditioner.embedders.1.model.transformer.resblocks.";

struct Flags {
  int threads = 0, runs = 9;
};

using Entries = std::vector<SafetensorsEntry>;

// What kohya's trainer writes for a module of [out, in].
void AddModule(absl::string_view name, int64_t out, int64_t in, Entries* adapter) {
  const auto add = [&](absl::string_view part, std::vector<int64_t> shape) {
    SafetensorsEntry entry{absl::StrCat(absl::StrReplaceAll(name, {{".", "_"}}), part), DType::kF16,
                           std::move(shape), ""};
    entry.data.assign(entry.bytes(), '\x11');
    adapter->push_back(std::move(entry));
  };
  add(".lora_up.weight", {out, kRank});
  add(".lora_down.weight", {kRank, in});
  add(".alpha", {});
}

void AddOpenClipLayer(absl::string_view name, int64_t out, int64_t in, Entries* adapter) {
  const std::string layer =
      absl::StrCat("lora_te2.text_model.encoder.layers.", name.substr(0, name.find('.')), ".");
  if (absl::EndsWith(name, "attn.in_proj")) {
    for (const char* const part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      AddModule(absl::StrCat(layer, part), out / 3, in, adapter);
  } else if (absl::EndsWith(name, "attn.out_proj")) {
    AddModule(absl::StrCat(layer, "self_attn.out_proj"), out, in, adapter);
  } else {
    AddModule(absl::StrCat(layer, absl::EndsWith(name, "c_fc") ? "mlp.fc1" : "mlp.fc2"), out, in,
              adapter);
  }
}

// Of all linear layers in the transformer blocks of `checkpoint`.
Entries Adapter(const Entries& checkpoint) {
  Entries adapter;
  for (const SafetensorsEntry& weight : checkpoint) {
    absl::string_view name = weight.name;
    if (weight.shape.size() != 2 ||
        !(absl::ConsumeSuffix(&name, ".weight") || absl::ConsumeSuffix(&name, "_weight")))
      continue;
    const int64_t out = weight.shape[0], in = weight.shape[1];
    if (absl::ConsumePrefix(&name, kUNet)) {
      if (absl::StrContains(name, "transformer_blocks") || absl::StrContains(name, ".proj_"))
        AddModule(absl::StrCat("lora_unet.", name), out, in, &adapter);
    } else if (absl::ConsumePrefix(&name, kClipL)) {
      if (absl::StrContains(name, ".layers."))
        AddModule(absl::StrCat("lora_te1.", name), out, in, &adapter);
    } else if (absl::ConsumePrefix(&name, kClipG)) {
      AddOpenClipLayer(name, out, in, &adapter);
    }
  }
  return adapter;
}

nlohmann::json Summary(const std::vector<double>& seconds) {
  return {{"median", Median(seconds)}, {"runs", seconds}};
}

void Write(const std::string& path, const Entries& entries) {
  OrDie([&]() -> absl::StatusOr<bool> {
    const absl::Status status = WriteSafetensors(path, entries);
    if (!status.ok()) return status;
    return true;
  }());
}

void Run(const Flags& flags) {
  const TempFolder folder;
  const Entries checkpoint = OrDie(RealHeader(DISTORCH_GOLDEN_DIR, "sdxl.f16"));
  Write(folder.File("sdxl.safetensors"), checkpoint);
  Write(folder.File("lora.safetensors"), Adapter(checkpoint));
  CoreOptions options;
  options.checkpoint_dirs = options.lora_dirs = {folder.path()};
  options.simulate_devices = "cuda:0=16GiB";
  options.threads = flags.threads;
  const std::unique_ptr<DaemonCore> core = OrDie(DaemonCore::Create(options, nullptr));
  CoreClient client(core.get());
  LoadSpec spec;
  spec.ckpt_name = "sdxl.safetensors";
  spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = "cuda:0";
  spec.unet_virtual_vram_gb = spec.clip_virtual_vram_gb = 0;
  const LoadResult loaded = OrDie(client.Load(spec));

  int patched = 0;
  const auto apply = [&](double strength, std::vector<double>* seconds) {
    const absl::Time start = absl::Now();
    ApplyLoraResult applied = OrDie(
        client.ApplyLora({loaded.model, loaded.clip, "lora.safetensors", strength, strength}));
    seconds->push_back(absl::ToDoubleSeconds(absl::Now() - start));
    patched = applied.patched;
    return std::vector<std::string>{applied.model, applied.clip};
  };
  std::vector<double> first, other;
  for (int i = 0; i <= flags.runs; ++i) {
    UnloadSpec unload;
    unload.handles = apply(0.8, &first);
    for (std::string& handle : apply(0.7, &other)) unload.handles.push_back(std::move(handle));
    OrDie(client.Unload(unload));
  }
  // The first run warms the page cache up.
  first.erase(first.begin());
  other.erase(other.begin());
  const nlohmann::json out = {{"patched", patched},
                              {"threads", flags.threads},
                              {"apply_seconds", Summary(first)},
                              {"other_strength_seconds", Summary(other)}};
  std::cout << out.dump() << "\n";
}

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) {
  distorch::Flags flags;
  CLI::App app("Times ApplyLora on a loaded checkpoint of SDXL's real size");
  app.add_option("--threads", flags.threads, "0: all cores");
  app.add_option("--runs", flags.runs, "timed runs, after one warm-up")->check(CLI::Range(1, 100));
  CLI11_PARSE(app, argc, argv);
  distorch::Run(flags);
}
