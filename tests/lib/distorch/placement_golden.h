// tests/golden/placement.json, read.
#ifndef TESTS_LIB_DISTORCH_PLACEMENT_GOLDEN_H_
#define TESTS_LIB_DISTORCH_PLACEMENT_GOLDEN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/distorch/planner.h"

namespace distorch {

struct GoldenModel {
  bool is_text_encoder = false;
  std::vector<Block> blocks;
};

struct GoldenCase {
  std::string model;
  std::vector<DeviceMemory> devices;
  std::string allocation;  // the one-line form; what follows the compute device may be missing
  AllocationFields fields;
  std::vector<DeviceId> assignment;  // of every block
  std::map<DeviceId, int64_t> bytes;
};

struct PlacementGolden {
  std::map<std::string, GoldenModel> models;
  std::vector<GoldenCase> cases;
};

// Aborts on a file that is not as described in the golden folder's README.
PlacementGolden ReadPlacementGolden(const std::string& path);

}  // namespace distorch

#endif  // TESTS_LIB_DISTORCH_PLACEMENT_GOLDEN_H_
