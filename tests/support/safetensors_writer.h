// Writes safetensors files for tests, real or sparse.
#ifndef TESTS_SUPPORT_SAFETENSORS_WRITER_H_
#define TESTS_SUPPORT_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/base/dtype.h"

namespace distorch {

// One tensor to write. Without data its bytes are zeros, left as a hole in the file; with data
// there must be as many bytes as shape and dtype need.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string data;

  uint64_t bytes() const;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

// The first 8 + N bytes of a file of `entries` in this order: compact JSON, metadata (unless empty)
// first, padded with spaces so that the data is aligned to 8, byte for byte as the safetensors
// library writes it.
std::string SafetensorsHeaderBytes(const std::vector<SafetensorsEntry>& entries,
                                   const SafetensorsMetadata& metadata = {});

// Writes the file, replacing what is there. Any size is cheap as long as the entries have no data.
absl::Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsEntry>& entries,
                              const SafetensorsMetadata& metadata = {});

// The tensors, without data, of the real-size checkpoint `name` ("sd15.f16", "flux_dev.fp8", …) of
// `golden_dir`/real_headers.json.
absl::StatusOr<std::vector<SafetensorsEntry>> RealHeader(const std::string& golden_dir,
                                                         const std::string& name);

}  // namespace distorch

#endif  // TESTS_SUPPORT_SAFETENSORS_WRITER_H_
