#include "tests/lib/distorch/placement_golden.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_split.h"

namespace distorch {
namespace {

using Json = nlohmann::ordered_json;  // devices are numbered in the order written

AllocationFields ReadFields(const std::string& line) {
  const std::pair<std::string, std::string> halves = absl::StrSplit(line, absl::MaxSplits('#', 1));
  const std::vector<std::string> rest = absl::StrSplit(halves.second, ';');
  AllocationFields fields;
  fields.expert_mode_allocations = halves.first;
  fields.compute_device = rest[0];
  if (rest.size() > 1) fields.virtual_vram_gb = std::strtod(rest[1].c_str(), nullptr);
  if (rest.size() > 2) fields.donor_device = rest[2];
  return fields;
}

GoldenModel ReadModel(const Json& json) {
  GoldenModel model{.is_text_encoder = json.at("is_clip")};
  for (const Json& block : json.at("blocks")) {
    model.blocks.push_back(
        {.name = block.at(0), .bytes = block.at(1), .has_bias_member = block.at(2)});
  }
  return model;
}

GoldenCase ReadCase(const Json& json) {
  GoldenCase golden{.model = json.at("model"), .allocation = json.at("allocation")};
  golden.fields = ReadFields(golden.allocation);
  for (const auto& [name, total] : json.at("devices").items()) {
    golden.devices.push_back({ParseDeviceId(name).value(), total});
  }
  for (const Json& run : json.at("assignment")) {
    golden.assignment.insert(golden.assignment.end(), run.at(1).get<size_t>(),
                             golden.devices.at(run.at(0).get<size_t>()).device);
  }
  for (const auto& [name, bytes] : json.at("bytes").items()) {
    golden.bytes[ParseDeviceId(name).value()] = bytes;
  }
  return golden;
}

}  // namespace

PlacementGolden ReadPlacementGolden(const std::string& path) {
  std::ifstream file(path);
  const Json json = Json::parse(file);
  PlacementGolden golden;
  for (const auto& [name, model] : json.at("models").items())
    golden.models[name] = ReadModel(model);
  for (const Json& one : json.at("cases")) golden.cases.push_back(ReadCase(one));
  return golden;
}

}  // namespace distorch
