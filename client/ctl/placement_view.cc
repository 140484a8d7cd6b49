#include "client/ctl/placement_view.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace distorch::ctl {
namespace {

constexpr int kBarWidth = 24;

int64_t Bytes(const v1::DeviceBytes& device, PlacementKind kind) {
  return kind == PlacementKind::kLoaded ? device.measured_bytes() : device.planned_bytes();
}

// The component's devices, with the compute device added at the front when it holds nothing.
std::vector<v1::DeviceBytes> DevicesOf(const v1::ComponentPlacement& component) {
  std::vector<v1::DeviceBytes> devices(component.devices().begin(), component.devices().end());
  bool holds = std::any_of(devices.begin(), devices.end(), [&](const v1::DeviceBytes& device) {
    return device.device() == component.compute_device();
  });
  if (!holds && !component.compute_device().empty()) {
    v1::DeviceBytes compute;
    compute.set_device(component.compute_device());
    devices.insert(devices.begin(), compute);
  }
  return devices;
}

void AddComponent(const v1::ComponentPlacement& component, PlacementKind kind,
                  const Terminal& terminal, Table& table) {
  int64_t total = 0;
  for (const v1::DeviceBytes& device : component.devices()) total += Bytes(device, kind);
  std::string name = component.component();
  for (const v1::DeviceBytes& device : DevicesOf(component)) {
    double share =
        total > 0 ? static_cast<double>(Bytes(device, kind)) / static_cast<double>(total) : 0;
    bool computes = device.device() == component.compute_device() ||
                    component.units().contains(device.device());
    std::vector<std::string> cells = {name, absl::StrCat(device.device(), computes ? " *" : ""),
                                      Bar(share, kBarWidth, terminal.unicode), FormatPercent(share),
                                      FormatBytes(device.planned_bytes())};
    if (kind == PlacementKind::kLoaded) cells.push_back(FormatBytes(device.measured_bytes()));
    cells.push_back(absl::StrCat(device.blocks()));
    table.AddRow(std::move(cells));
    name.clear();
  }
}

// What "auto" chose for the components that it chose for.
std::string Chosen(const v1::Placement& placement) {
  constexpr std::string_view kMark = " = ";
  std::string text;
  for (const v1::ComponentPlacement& component : placement.components()) {
    const std::string_view allocation = component.allocation();
    const size_t mark = allocation.find(kMark);
    if (mark == std::string_view::npos) continue;
    absl::StrAppend(&text, Printable(component.component()),
                    " auto: ", Printable(allocation.substr(mark + kMark.size())), "\n");
  }
  return text;
}

}  // namespace

std::string RenderPlacement(const v1::Placement& placement, PlacementKind kind,
                            const Terminal& terminal) {
  std::vector<Table::Column> columns = {
      {"COMPONENT"}, {"DEVICE"}, {"SHARE"}, {"", Align::kRight}, {"PLANNED", Align::kRight}};
  if (kind == PlacementKind::kLoaded) columns.push_back({"MEASURED", Align::kRight});
  columns.push_back({"BLOCKS", Align::kRight});
  Table table(std::move(columns));
  for (const v1::ComponentPlacement& component : placement.components()) {
    AddComponent(component, kind, terminal, table);
  }
  return absl::StrCat(table.Render(), "* computes here\n", Chosen(placement));
}

std::string RenderBlocks(const v1::Placement& placement) {
  Table table({{"COMPONENT"}, {"BLOCK"}, {"DEVICE"}, {"BYTES", Align::kRight}});
  for (const v1::ComponentPlacement& component : placement.components()) {
    for (const v1::BlockPlacement& block : component.blocks()) {
      table.AddRow(
          {component.component(), block.name(), block.device(), absl::StrCat(block.bytes())});
    }
  }
  return table.Render();
}

std::string RenderDeviceBytes(const google::protobuf::RepeatedPtrField<v1::DeviceBytes>& devices) {
  return absl::StrJoin(devices, ", ", [](std::string* out, const v1::DeviceBytes& device) {
    int64_t bytes = device.measured_bytes() > 0 ? device.measured_bytes() : device.planned_bytes();
    absl::StrAppend(out, device.device(), " ", FormatBytes(bytes));
  });
}

std::string RenderPrediction(double seconds_per_step) {
  return absl::StrCat("predicted: ", FormatSeconds(seconds_per_step), " a step\n");
}

std::string RenderPhases(const google::protobuf::Map<std::string, double>& phase_seconds) {
  constexpr std::array<std::string_view, 11> kOrder = {"open",    "detect", "plan",   "reserve",
                                                       "weights", "queue",  "encode", "text",
                                                       "sample",  "decode", "png"};
  std::vector<std::tuple<size_t, std::string, double>> phases;
  for (const auto& [name, seconds] : phase_seconds) {
    phases.emplace_back(std::find(kOrder.begin(), kOrder.end(), name) - kOrder.begin(), name,
                        seconds);
  }
  std::sort(phases.begin(), phases.end());
  return absl::StrJoin(phases, ", ", [](std::string* out, const auto& phase) {
    absl::StrAppend(out, Printable(std::get<1>(phase)), " ", FormatSeconds(std::get<2>(phase)));
  });
}

}  // namespace distorch::ctl
