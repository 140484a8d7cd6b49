#include "lib/device/simulated_device.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/device/simulated_memory.h"
#include "lib/device/simulated_ops.h"

namespace distorch {
namespace {

using simulated::Devices;
using simulated::kDeviceType;
using simulated::kMaxDevices;

thread_local c10::DeviceIndex current_device = 0;

// Work is done when a call returns: there is one stream a device, and every event has happened.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kDeviceType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kDeviceType, std::exchange(current_device, device.index())};
  }
  c10::Device getDevice() const override { return {kDeviceType, current_device}; }
  void setDevice(c10::Device device) const override { current_device = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(Devices().size.load());
  }

  c10::Stream getStream(c10::Device device) const override { return Stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return Stream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return Stream(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override { return Stream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}

  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}

 private:
  static c10::Stream Stream(c10::Device device) {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
};

// LibTorch asks these of any accelerator, as when it copies to pinned memory or seeds all
// generators.
class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return deviceCount() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return Guard().deviceCount(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { current_device = index; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return std::exchange(current_device, index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  // Random numbers come from the CPU's generator, whatever device they are for.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::kCPU); }
};

void RegisterBackendOnce() {
  static const bool registered = [] {
    c10::register_privateuse1_backend("sim");
    c10::impl::registerDeviceGuard(kDeviceType, new Guard());
    at::RegisterPrivateUse1HooksInterface(new Hooks());
    simulated::RegisterOperators();
    return true;
  }();
  static_cast<void>(registered);
}

// "40TFLOPS" -> 4e13.
absl::StatusOr<double> ParseFlops(std::string_view text) {
  constexpr double kMost = 1e18;
  for (const auto& [unit, factor] :
       {std::pair("GFLOPS", 1e9), std::pair("TFLOPS", 1e12), std::pair("PFLOPS", 1e15)}) {
    if (!absl::EndsWith(text, unit)) continue;
    const std::string_view number = text.substr(0, text.size() - std::string_view(unit).size());
    double value = 0;
    if (absl::SimpleAtod(number, &value) && value > 0 && value * factor <= kMost)
      return value * factor;
  }
  return absl::InvalidArgumentError(
      "a speed is above 0, at most 1000 PFLOPS, and in GFLOPS, TFLOPS or PFLOPS");
}

absl::StatusOr<SimulatedDevice> ParseEntry(const std::string& entry) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits('=', 1));
  const std::vector<std::string> amounts = absl::StrSplit(parts.second, absl::MaxSplits('@', 1));
  SimulatedDevice device;
  ASSIGN_OR_RETURN(device.device, ParseDeviceId(parts.first));
  if (device.device.is_disk()) return absl::InvalidArgumentError("disk has no memory to simulate");
  ASSIGN_OR_RETURN(device.total_bytes, ParseByteSize(amounts[0]));
  if (device.total_bytes == 0) return absl::InvalidArgumentError("the amount must be above zero");
  if (amounts.size() > 1) {
    ASSIGN_OR_RETURN(device.flops_per_second, ParseFlops(amounts[1]));
  }
  return device;
}

}  // namespace

absl::StatusOr<std::vector<SimulatedDevice>> ParseSimulatedDevices(std::string_view text) {
  std::vector<SimulatedDevice> devices;
  const std::vector<std::string> entries = absl::StrSplit(std::string(text), ',');
  for (const std::string& piece : entries) {
    const std::string entry(absl::StripAsciiWhitespace(piece));
    absl::StatusOr<SimulatedDevice> parsed = ParseEntry(entry);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", entry, "': ", parsed.status().message(),
                       "; expected DEVICE=AMOUNT[@SPEED], for example cuda:0=8GiB or "
                       "cuda:0=8GiB@40TFLOPS"));
    }
    for (const SimulatedDevice& other : devices) {
      if (other.device == parsed->device) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", entry, "': ", parsed->device.ToString(), " is named twice"));
      }
    }
    devices.push_back(*std::move(parsed));
  }
  return devices;
}

absl::Status ConfigureSimulatedDevices(const std::vector<DeviceMemory>& devices) {
  if (devices.size() > kMaxDevices) {
    return absl::InvalidArgumentError(
        absl::StrCat("at most ", kMaxDevices, " simulated devices, not ", devices.size()));
  }
  for (const simulated::CountingAllocator& allocator : Devices().allocators) {
    const int64_t allocated = allocator.Stats().allocated_bytes;
    if (allocated != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(allocator.name(), " (simulated) still holds ", FormatBytes(allocated)));
    }
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    Devices().allocators[i].Configure(devices[i].device.ToString(), devices[i].total_bytes);
  }
  Devices().size = static_cast<int>(devices.size());
  RegisterBackendOnce();
  return absl::OkStatus();
}

SimulatedDeviceStats GetSimulatedDeviceStats(int index) {
  return Devices().allocators.at(index).Stats();
}

void ResetSimulatedPeak(int index) { Devices().allocators.at(index).ResetPeak(); }

void ResetSimulatedAsked(int index) { Devices().allocators.at(index).ResetAsked(); }

void FailSimulatedAllocation(int index, int64_t nth) {
  Devices().allocators.at(index).FailAllocation(nth);
}

}  // namespace distorch
