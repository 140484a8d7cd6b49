// Plain types of the model half of the service: what a client asks of the registry, and what it is
// told. Free of LibTorch and protobuf; server/ translates. Bytes are bytes, times are seconds.
#ifndef LIB_SERVING_LOAD_SPEC_H_
#define LIB_SERVING_LOAD_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace distorch {

// The node's fields under the node's names. Absent fields take the node's defaults
// (reference-semantics).
struct LoadSpec {
  std::string ckpt_name;
  std::optional<std::string> unet_compute_device;
  std::optional<double> unet_virtual_vram_gb;
  std::optional<std::string> unet_donor_device;
  std::optional<std::string> clip_compute_device;
  std::optional<double> clip_virtual_vram_gb;
  std::optional<std::string> clip_donor_device;
  std::optional<std::string> vae_device;
  std::optional<std::string> unet_expert_mode_allocations;
  std::optional<std::string> clip_expert_mode_allocations;
  std::optional<bool> high_precision_loras;
  std::optional<bool> eject_models;
  std::optional<std::string> weight_dtype;
  std::optional<int64_t> lease_seconds;
  std::optional<bool> reference_rounding;
  std::optional<std::string> execution;  // absent: the server's
};

// Fields of the node under their names, as they took effect (defaults filled in).
using LoaderFields = std::vector<std::pair<std::string, std::variant<std::string, double, bool>>>;

struct DeviceBytes {
  std::string device;
  int64_t planned_bytes = 0;
  int64_t measured_bytes = 0;  // 0 in a plan
  int blocks = 0;
};
struct BlockPlacement {
  std::string name;
  std::string device;
  int64_t bytes = 0;
};
struct ComponentPlacement {
  std::string component;  // "unet", "clip", "vae"
  std::string compute_device;
  std::vector<DeviceBytes> devices;    // those that hold blocks, in the planner's order
  std::vector<BlockPlacement> blocks;  // only in a plan
  std::string allocation;              // the fields in the reference's one-line form
  std::map<std::string, int> units;    // by device, how many of the component's units run there
};
using Placement = std::vector<ComponentPlacement>;

struct CheckpointPlan {
  std::string family;
  Placement placement;
  double predicted_step_seconds = 0;  // of a usual step; 0: not known
  bool fits = false;
  std::string reason;  // why it does not fit: who holds what
};

struct LoadProgress {
  std::string phase;  // "open", "detect", "plan", "reserve", "weights"
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
};

// What a client has to know that runs a sampler of its own over Denoise. Latents as LatentFormat's.
struct DenoiserInfo {
  bool flow = false;
  double sigma_min = 0, sigma_max = 0;
  int64_t latent_channels = 0;
  double latent_scale = 1;
  std::vector<float> latent_mean, latent_deviation;
  int64_t concat_channels = 0;
  bool concat_in_model_space = false;
};

struct LoadResult {
  std::string model, clip, vae;  // handles; empty for a component that the file lacks
  std::string family;
  Placement placement;
  double predicted_step_seconds = 0;     // as CheckpointPlan's
  std::optional<DenoiserInfo> denoiser;  // absent without a model
  std::map<std::string, double> phase_seconds;
};

struct DeviceInfo {
  std::string name, kind, description, uuid;
  int64_t total_bytes = 0, free_bytes = 0, weights_bytes = 0;
  // Promised to loads under way, and to requests that have not allocated it yet.
  int64_t reserved_bytes = 0;
  int64_t staging_bytes = 0;
  // Allocated and neither weights nor staging; of a CPU, which does not count that, what is held
  // for requests.
  int64_t activation_bytes = 0;
  int queue_length = 0;  // jobs waiting for the device's executor
};

struct CheckpointInfo {
  std::string ckpt_name;
  int64_t bytes = 0;
  std::string format;
  std::string family;  // empty when unknown
  std::string error;   // why it cannot be loaded; empty when it can
};

// An adapter file on a model, its text encoders, or both.
struct ApplyLoraSpec {
  std::string model, clip;  // handles; either may be empty
  std::string lora_name;    // relative to a folder of LoRA files
  double strength_model = 1, strength_clip = 1;
};
struct ApplyLoraResult {
  std::string model, clip;                  // new handles for those given
  int patched = 0;                          // parameters
  std::vector<std::string> unmatched_keys;  // of the file, in its order; the first few hundred
  int64_t unmatched_count = 0;
};

struct ModelInfo {
  std::string handle;
  std::string kind;  // "model", "clip", "vae"
  std::string ckpt_name;
  std::string family;
  std::string state;  // "STORED", "LOADING", "READY", "UNLOADING" (registry.h)
  int in_use = 0;
  std::vector<DeviceBytes> devices;  // all that it computes with, shared or not
  // By device, the measured bytes that no handle listed before it computes with: their sum over all
  // handles is what is really stored.
  std::map<std::string, int64_t> unshared_bytes;
};

struct UnloadSpec {
  std::vector<std::string> handles;
  bool all = false;
  bool force = false;
};
struct UnloadReceipt {
  std::map<std::string, int64_t> freed_bytes;  // by device
  int handles_closed = 0;
};

// A direction between two devices.
struct LinkInfo {
  std::string from, to;
  // Measured at start, or as --link says; 0 where neither is the case.
  double bytes_per_second = 0, latency_seconds = 0;
  bool simulated = false;
  // Weights brought over it so far, and of the time that took, what computing waited for and what
  // went on while it computed.
  int64_t bytes = 0;
  double exposed_seconds = 0, overlapped_seconds = 0;
};

}  // namespace distorch

#endif  // LIB_SERVING_LOAD_SPEC_H_
