#include "lib/distorch/planner.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace distorch {
namespace {

// Blocks below this share of the model are not worth a transfer.
constexpr double kTinyShare = 0.0001;

using Quotas = std::vector<double>;  // bytes, per device of the sorted table

// The position of `device` in the sorted table, which must hold it.
size_t IndexOf(const std::vector<DeviceMemory>& table, const DeviceId& device) {
  const auto it = std::find_if(table.begin(), table.end(),
                               [&](const DeviceMemory& known) { return known.device == device; });
  assert(it != table.end());
  return static_cast<size_t>(it - table.begin());
}

Quotas VirtualVramQuotas(double model_bytes, const Allocation& allocation,
                         const std::vector<DeviceMemory>& table) {
  Quotas quotas(table.size());
  double left = static_cast<double>(allocation.virtual_vram_bytes);
  quotas[IndexOf(table, allocation.compute_device)] = std::max(0.0, model_bytes - left);
  for (const AllocationEntry& donor : allocation.entries) {
    const size_t device = IndexOf(table, donor.device);
    const double taken = std::min(left, static_cast<double>(table[device].total_bytes));
    quotas[device] += taken;
    left -= taken;
  }
  return quotas;
}

Quotas ByteQuotas(double model_bytes, const Allocation& allocation,
                  const std::vector<DeviceMemory>& table) {
  Quotas quotas(table.size());
  const auto cpu = std::find_if(table.begin(), table.end(),
                                [](const DeviceMemory& known) { return known.device.is_cpu(); });
  size_t wildcard = cpu != table.end() ? static_cast<size_t>(cpu - table.begin())
                                       : IndexOf(table, allocation.compute_device);
  double left = model_bytes;
  for (const AllocationEntry& entry : allocation.entries) {
    const size_t device = IndexOf(table, entry.device);
    if (entry.wildcard) {
      wildcard = device;
      continue;
    }
    quotas[device] = std::min(entry.amount, left);
    left -= quotas[device];
  }
  quotas[wildcard] += left;
  return quotas;
}

Quotas RatioQuotas(double model_bytes, const Allocation& allocation,
                   const std::vector<DeviceMemory>& table) {
  Quotas quotas(table.size());
  double sum = 0;
  for (const AllocationEntry& entry : allocation.entries) sum += entry.amount;
  for (const AllocationEntry& entry : allocation.entries) {
    quotas[IndexOf(table, entry.device)] = entry.amount / sum * model_bytes;
  }
  return quotas;
}

Quotas FractionQuotas(const Allocation& allocation, const std::vector<DeviceMemory>& table) {
  Quotas quotas(table.size());
  for (const AllocationEntry& entry : allocation.entries) {
    const size_t device = IndexOf(table, entry.device);
    quotas[device] = entry.amount * static_cast<double>(table[device].total_bytes);
  }
  return quotas;
}

// The decimal nearest to the exact value, as the reference's language rounds; scaling by 10^4 would
// miss near halves.
double RoundTo4Decimals(double value) {
  std::array<char, 400> text;
  const auto printed =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 4);
  double rounded = 0;
  std::from_chars(text.data(), printed.ptr, rounded, std::chars_format::fixed);
  return rounded;
}

std::vector<int64_t> WholeQuotas(double model_bytes, const Allocation& allocation,
                                 const std::vector<DeviceMemory>& table, PlannerMode mode) {
  Quotas quotas;
  switch (allocation.mode) {
    case AllocationMode::kVirtualVram:
      quotas = VirtualVramQuotas(model_bytes, allocation, table);
      break;
    case AllocationMode::kBytes:
      quotas = ByteQuotas(model_bytes, allocation, table);
      break;
    case AllocationMode::kRatio:
      quotas = RatioQuotas(model_bytes, allocation, table);
      break;
    case AllocationMode::kFraction:
      quotas = FractionQuotas(allocation, table);
      break;
  }
  std::vector<int64_t> whole(table.size());
  for (size_t i = 0; i < table.size(); ++i) {
    const double total = static_cast<double>(table[i].total_bytes);
    // The reference uses fractions as written, and knows of no disk.
    if (mode == PlannerMode::kReference && allocation.mode != AllocationMode::kFraction &&
        total > 0 && !table[i].device.is_disk()) {
      quotas[i] = RoundTo4Decimals(quotas[i] / total) * total;
    }
    // More than the model is no more use than the model.
    whole[i] = static_cast<int64_t>(std::min(quotas[i], model_bytes));
  }
  return whole;
}

bool IsEmbedding(std::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  return absl::StrContains(lower, "embed") || absl::StrContains(lower, "wte") ||
         absl::StrContains(lower, "wpe");
}

}  // namespace

Plan MakePlan(std::span<const Block> blocks, const Allocation& allocation,
              const std::vector<DeviceMemory>& devices, const PlannerOptions& options) {
  std::vector<DeviceMemory> table = devices;
  std::sort(table.begin(), table.end(),
            [](const DeviceMemory& a, const DeviceMemory& b) { return a.device < b.device; });
  const size_t compute = IndexOf(table, allocation.compute_device);
  double model_bytes = 0;
  for (const Block& block : blocks) model_bytes += static_cast<double>(block.bytes);
  std::vector<int64_t> left = WholeQuotas(model_bytes, allocation, table, options.mode);

  std::vector<bool> stays_on_compute(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Block& block = blocks[i];
    const bool embedding = options.is_text_encoder && IsEmbedding(block.name);
    if (embedding) left[compute] -= block.bytes;
    stays_on_compute[i] = embedding || !block.has_bias_member || block.bytes == 0 ||
                          static_cast<double>(block.bytes) < kTinyShare * model_bytes;
  }

  Plan plan;
  for (const DeviceMemory& device : table) plan.devices.push_back(device.device);
  plan.assignment.assign(blocks.size(), static_cast<int>(compute));
  plan.bytes.assign(table.size(), 0);
  plan.block_count.assign(table.size(), 0);
  for (size_t i = blocks.size(); i-- > 0;) {
    size_t device = compute;
    if (!stays_on_compute[i]) {
      const auto fits = std::find_if(left.begin(), left.end(),
                                     [&](int64_t bytes) { return bytes >= blocks[i].bytes; });
      if (fits != left.end()) {
        *fits -= blocks[i].bytes;
        device = static_cast<size_t>(fits - left.begin());
      }
    }
    plan.assignment[i] = static_cast<int>(device);
    plan.bytes[device] += blocks[i].bytes;
    ++plan.block_count[device];
  }
  return plan;
}

}  // namespace distorch
