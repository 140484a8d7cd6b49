// Measuring a CPU in one type, which every start of the daemon does for those that its devices
// compute in. Target: under 0.5 s of processor time, with or without instructions for the type.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "lib/device/device_speeds.h"

namespace distorch {
namespace {

void BM_MeasureCpu(benchmark::State& state, c10::ScalarType dtype) {
  const auto devices = DeviceManager::Create({.simulate_devices = "cpu=1GiB"});
  if (!devices.ok()) return state.SkipWithError(std::string(devices.status().message()).c_str());
  for (auto _ : state) {
    DeviceSpeeds speeds(**devices);
    if (!speeds.Of(DeviceId(), dtype).ok()) return state.SkipWithError("it could not be measured");
  }
}
BENCHMARK_CAPTURE(BM_MeasureCpu, float32, c10::kFloat)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_MeasureCpu, float16, c10::kHalf)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_MeasureCpu, bfloat16, c10::kBFloat16)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace distorch
