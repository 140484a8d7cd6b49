// Any text as extra_model_paths.yaml: an error that names the file, or absolute paths.
#include <cstddef>
#include <cstdint>
#include <string>

#include "lib/serving/checkpoint_folders.h"
#include "tests/fuzz/require.h"

using distorch::Require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string yaml(reinterpret_cast<const char*>(data), size);
  const auto paths = distorch::ParseExtraModelPaths(yaml, "/conf/extra.yaml");
  if (!paths.ok()) {
    Require(std::string(paths.status().message()).starts_with("'/conf/extra.yaml', line "));
    return 0;
  }
  for (const auto* list : {&paths->checkpoints, &paths->loras, &paths->embeddings}) {
    for (const std::string& path : *list)
      Require(path.starts_with('/') && path.find('\0') == path.npos);
  }
  return 0;
}
