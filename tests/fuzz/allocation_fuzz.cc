// Any text as an allocation: it is refused with a message, or its plan keeps every invariant. The
// first byte chooses the compute device and the planner's mode, the second the virtual VRAM; the
// rest is the expert string, then after a NUL the donors.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "lib/distorch/allocation.h"
#include "lib/distorch/planner.h"
#include "tests/lib/distorch/plan_checker.h"

namespace distorch {
namespace {

const std::vector<DeviceMemory>& Devices() {
  static const auto* const devices = new std::vector<DeviceMemory>{{{"cuda", 0}, int64_t{8} << 30},
                                                                   {{"cuda", 1}, int64_t{12} << 30},
                                                                   {{"mps", 0}, 1},
                                                                   {{"cpu", 0}, int64_t{1} << 50}};
  return *devices;
}

const std::vector<Block>& Blocks() {
  static const auto* const blocks = [] {
    auto* result = new std::vector<Block>;
    for (int i = 0; i < 60; ++i) {
      result->push_back({.name = i % 9 == 0 ? "token_embedding" : "linear",
                         .bytes = i * i * int64_t{1'234'567},
                         .has_bias_member = i % 7 != 0});
    }
    return result;
  }();
  return *blocks;
}

void Fail(const AllocationFields& fields, const std::string& what) {
  std::fprintf(stderr, "%s\n  %s\n", FormatAllocation(fields).c_str(), what.c_str());
  std::abort();
}

void PlanAnything(uint8_t choice, uint8_t virtual_vram, const std::string& text) {
  AllocationFields fields;
  fields.compute_device = Devices()[choice % Devices().size()].device.ToString();
  fields.virtual_vram_gb = virtual_vram / 2.0;
  const size_t nul = text.find('\0');
  fields.expert_mode_allocations = text.substr(0, nul);
  if (nul != std::string::npos) fields.donor_device = text.substr(nul + 1);

  const auto allocation = ParseAllocation(fields, Devices());
  if (!allocation.ok()) {
    if (allocation.status().code() != absl::StatusCode::kInvalidArgument)
      Fail(fields, "refused with another code");
    if (allocation.status().message().find("unet_") != 0)
      Fail(fields, "the error does not name the field");
    return;
  }
  const PlannerOptions options{
      .mode = (choice & 16) != 0 ? PlannerMode::kReference : PlannerMode::kExact,
      .is_text_encoder = (choice & 32) != 0};
  const Plan plan = MakePlan(Blocks(), *allocation, Devices(), options);
  const std::string violation = PlanViolation(Blocks(), *allocation, Devices(), options, plan);
  if (!violation.empty()) Fail(fields, violation);
}

}  // namespace
}  // namespace distorch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  distorch::PlanAnything(data[0], data[1], std::string(data + 2, data + size));
  return 0;
}
