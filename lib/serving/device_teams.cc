#include "lib/serving/device_teams.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "lib/serving/replicas.h"

namespace distorch {
namespace {

constexpr std::string_view kOff = "off", kAuto = "auto";

// Of a text that names devices.
absl::StatusOr<std::vector<DeviceId>> ParseDevices(std::string_view field,
                                                   const std::string& parallel,
                                                   const DeviceManager& devices) {
  std::vector<DeviceId> named;
  for (absl::string_view piece : absl::StrSplit(parallel, ',')) {
    const auto device = ParseDeviceId({piece.data(), piece.size()});
    if (!device.ok() || !devices.Has(*device)) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": ", Quoted({piece.data(), piece.size()}),
          " is not a device; allowed: off, auto, or of ", devices.KnownNames(), " one or more"));
    }
    if (std::find(named.begin(), named.end(), *device) == named.end()) named.push_back(*device);
  }
  return named;
}

}  // namespace

DeviceTeams::DeviceTeams(const DeviceManager& devices, std::string by_default, Streamer* streamer,
                         PhaseRunner* runner, Observer* observer)
    : devices_(devices),
      by_default_(std::move(by_default)),
      streamer_(streamer),
      runner_(runner),
      observer_(observer) {}

absl::Status DeviceTeams::Check(std::string_view field, const std::string& parallel,
                                const DeviceManager& devices) {
  if (parallel.empty() || parallel == kOff || parallel == kAuto) return absl::OkStatus();
  return ParseDevices(field, parallel, devices).status();
}

bool DeviceTeams::MaySpread(const std::string& parallel) const {
  return (parallel.empty() ? by_default_ : parallel) != kOff;
}

absl::StatusOr<pipeline::Team> DeviceTeams::For(const LoadedComponent& model,
                                                const std::string& parallel) const {
  const std::string& wanted = parallel.empty() ? by_default_ : parallel;
  const c10::Device own = model.component->compute().device;
  pipeline::Team team;
  team.warn = [observer = observer_](std::string_view message) { observer->Warning(message); };
  std::vector<DeviceId> devices;
  if (wanted == kAuto) {
    // Beside a CPU that computes, an accelerator is not idle by chance.
    if (!own.is_cpu()) devices = devices_.devices();
    std::erase_if(devices, [](const DeviceId& device) { return device.is_cpu(); });
    team.times = model.replicas->times();
  } else if (wanted != kOff) {
    ASSIGN_OR_RETURN(devices, ParseDevices("options.parallel", wanted, devices_));
  }
  for (const DeviceId& device : devices) {
    const c10::Device torch_device = devices_.TorchDevice(device);
    if (torch_device == own) continue;
    pipeline::Teammate mate;
    ASSIGN_OR_RETURN(mate.model, model.replicas->On(model, torch_device, streamer_, devices_));
    mate.try_run = [runner = runner_, device](absl::AnyInvocable<void()> job) {
      return runner->TryRun(device, std::move(job));
    };
    team.mates.push_back(std::move(mate));
  }
  return team;
}

}  // namespace distorch
