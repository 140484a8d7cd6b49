// What it takes to make a handle again: the load that it came from, and what was done since. Free
// of LibTorch and of any file; equal recipes give equal handles.
#ifndef LIB_SERVING_STORED_HANDLE_H_
#define LIB_SERVING_STORED_HANDLE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/load_spec.h"

namespace distorch {

// What a load decided where its fields did not ("auto"): positions in `devices`.
struct DecidedSplit {
  std::vector<std::string> devices;
  std::vector<int> assignment;    // of each block
  std::vector<int> unit_devices;  // of each unit
};

// What made a handle of another: an adapter, or where that has no name a clip skip.
struct StoredStep {
  std::string lora_name;
  double strength = 1;
  int stop_at_layer = 0;
};

struct StoredHandle {
  std::string handle;
  std::string kind;  // "model", "clip" or "vae"
  std::string family;
  LoadSpec load;            // with the execution that it took
  std::string fingerprint;  // of the checkpoint's content
  std::string root;         // the handle of the checkpoint's component, before the steps
  std::string base;         // the handle of what it computes with, without a clip skip
  std::string request;      // LoadedComponent's
  DecidedSplit split;
  std::vector<StoredStep> steps;  // in the order taken
};

// Appends the step; of clip skips in a row the last one counts.
void AddStep(StoredStep step, StoredHandle* stored);

// Equal for equal loads.
std::string LoadToJson(const LoadSpec& load);

// As one JSON object, and back: INVALID_ARGUMENT for anything that ToJson does not make.
std::string ToJson(const StoredHandle& stored);
absl::StatusOr<StoredHandle> StoredHandleFromJson(const std::string& text);

}  // namespace distorch

#endif  // LIB_SERVING_STORED_HANDLE_H_
