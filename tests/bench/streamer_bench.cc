// What fetching ahead gains on a simulated link, and what it costs by itself.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "lib/device/simulated_device.h"
#include "lib/distorch/streamer.h"

namespace distorch {
namespace {

const DeviceId kCpu{}, kCuda0{"cuda", 0};
constexpr int kLayers = 24;

at::Device Cuda0() { return {at::kPrivateUse1, 0}; }

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A model of equal square layers, all of it on the host, that computes on a simulated device.
class Model {
 public:
  Model(int64_t width, int64_t rows, const LinkTable& links, int64_t staging_bytes)
      : streamer_({.staging_bytes = staging_bytes, .simulated = !links.entries().empty()},
                  {Cuda0(), at::kCPU}, links, &meter_, &ledger_),
        stream_(streamer_.Open()),
        x_(at::randn({rows, width}).to(Cuda0())) {
    for (int i = 0; i < kLayers; ++i) layers_.push_back({{at::randn({width, width})}, nullptr});
    stream_->ComputeOn(Cuda0(), kLayers * layers_[0].bytes());
    streamer_.FitRings({{kCuda0, kMemory}});
  }

  int64_t layer_bytes() const { return layers_[0].bytes(); }
  double timeline() const { return streamer_.timeline(Cuda0()).now(); }
  void Use(size_t layer) { benchmark::DoNotOptimize(stream_->Bring(layers_[layer], Cuda0())); }
  void Step() {
    for (const StoredWeights& layer : layers_) {
      const StagedWeights staged = stream_->Bring(layer, Cuda0());
      benchmark::DoNotOptimize(at::linear(x_, staged.tensors[0]));
    }
  }
  // A step with everything in place.
  double ComputeSeconds() {
    const at::Tensor weight = layers_[0].tensors[0].to(Cuda0());
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
      const double start = Now();
      for (int j = 0; j < kLayers; ++j) benchmark::DoNotOptimize(at::linear(x_, weight));
      best = std::min(best, Now() - start);
    }
    return best;
  }

  static constexpr int64_t kMemory = int64_t{4} << 30;

 private:
  TransferMeter meter_{{kCuda0, kCpu}};
  Ledger ledger_{{{kCuda0, kMemory}, {kCpu, kMemory}}};
  Streamer streamer_;
  std::vector<StoredWeights> layers_;
  std::unique_ptr<WeightStream> stream_;
  at::Tensor x_;
};

bool Configured() {
  static const bool configured = ConfigureSimulatedDevices({{kCuda0, Model::kMemory}}).ok();
  return configured;
}

// A step whose transfers take half as long as its computing. Arguments: layers that the ring holds;
// 0: none, every transfer is waited for. The time is the simulated one.
void BM_OffloadedStep(benchmark::State& state) {
  c10::InferenceMode no_autograd;
  if (!Configured()) return state.SkipWithError("no simulated device");
  constexpr int64_t kWidth = 1280, kRows = 512;
  const double compute = Model(kWidth, kRows, {}, 0).ComputeSeconds();
  LinkTable links;
  links.Set(kCpu, kCuda0, {kLayers * kWidth * kWidth * 4 / (compute / 2), 10e-6});
  Model model(kWidth, kRows, links, state.range(0) * kWidth * kWidth * 4);
  for (int i = 0; i < 3; ++i) model.Step();
  double total = 0;
  for (auto _ : state) {
    const double start = model.timeline();
    model.Step();
    state.SetIterationTime(model.timeline() - start);
    total += model.timeline() - start;
  }
  state.counters["x_compute"] = total / static_cast<double>(state.iterations()) / compute;
}
BENCHMARK(BM_OffloadedStep)
    ->ArgName("ring_layers")
    ->Arg(0)
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// A use of a small layer (16 KiB): what remains is the streamer's own cost. Arguments as above.
void BM_Bring(benchmark::State& state) {
  c10::InferenceMode no_autograd;
  if (!Configured()) return state.SkipWithError("no simulated device");
  LinkTable links;
  links.Set(kCpu, kCuda0, {25e9, 0});
  Model model(64, 1, links, state.range(0) * 64 * 64 * 4);
  size_t i = 0;
  for (auto _ : state) model.Use(i++ % kLayers);
}
BENCHMARK(BM_Bring)->ArgName("ring_layers")->Arg(0)->Arg(4);

}  // namespace
}  // namespace distorch
