// What a simulated device adds to an operator: the CPU's own time next to the simulated device's.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "lib/device/simulated_device.h"

namespace distorch {
namespace {

// Argument 0 runs on the CPU, 1 on a simulated device.
at::Device DeviceOf(const benchmark::State& state) {
  static const bool configured = ConfigureSimulatedDevices({{{"cuda", 0}, int64_t{4} << 30}}).ok();
  return state.range(0) != 0 && configured ? at::Device(at::kPrivateUse1, 0) : at::Device(at::kCPU);
}

void BM_SmallAdd(benchmark::State& state) {
  c10::InferenceMode no_autograd;
  const at::Tensor x = at::randn({16}).to(DeviceOf(state));
  for (auto _ : state) benchmark::DoNotOptimize(at::add(x, x));
}
BENCHMARK(BM_SmallAdd)->ArgName("simulated")->Arg(0)->Arg(1);

void BM_View(benchmark::State& state) {
  c10::InferenceMode no_autograd;
  const at::Tensor x = at::randn({4, 4}).to(DeviceOf(state));
  for (auto _ : state) benchmark::DoNotOptimize(x.view({16}));
}
BENCHMARK(BM_View)->ArgName("simulated")->Arg(0)->Arg(1);

// A convolution of a UNet's outermost level.
void BM_Convolution(benchmark::State& state) {
  c10::InferenceMode no_autograd;
  const at::Device device = DeviceOf(state);
  const at::Tensor x = at::randn({1, 320, 64, 64}).to(device);
  const at::Tensor weight = at::randn({320, 320, 3, 3}).to(device);
  const at::Tensor bias = at::randn({320}).to(device);
  for (auto _ : state) benchmark::DoNotOptimize(at::conv2d(x, weight, bias, 1, 1));
}
BENCHMARK(BM_Convolution)->ArgName("simulated")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace distorch
