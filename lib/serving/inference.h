// The calls that compute on loaded components.
#ifndef LIB_SERVING_INFERENCE_H_
#define LIB_SERVING_INFERENCE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_id.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/conditioning_cache.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/infer_job.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/observer.h"
#include "lib/serving/phase_costs.h"
#include "lib/serving/phase_memory.h"
#include "lib/serving/phases.h"
#include "lib/serving/preview_decoders.h"
#include "lib/serving/registry.h"

namespace distorch {

// What it is given must outlive it. Thread-safe; contracts as in daemon_core.h.
class Inference {
 public:
  Inference(std::vector<DeviceId> devices, Registry* registry, PhaseRunner* runner,
            const InferServices& services);

  void EncodeText(const EncodeTextSpec& spec, CancelTokenPtr cancel, Done<EncodeTextResult> done);
  void Sample(const SampleSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
              Done<HostTensor> done);
  void Denoise(const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done);
  void DecodeLatent(const DecodeLatentSpec& spec, CancelTokenPtr cancel,
                    Done<DecodeLatentResult> done);
  void EncodeImage(const EncodeImageSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done);
  void Infer(const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
             Done<InferResult> done);
  // The same in two steps: what the spec names is pinned, and then computed with.
  struct Pins {
    Pin model, clip, vae;
  };
  absl::StatusOr<Pins> Acquire(const InferSpec& spec, const CancelTokenPtr& cancel);
  void Infer(const InferSpec& spec, Pins pins, CancelTokenPtr cancel, InferCallbacks callbacks,
             Done<InferResult> done);

 private:
  // What a phase may need, in the order in which it is tried; asked when it begins.
  using Ways = absl::AnyInvocable<std::vector<PhaseMemory>()>;
  // The phase, in one of its ways.
  using WayWork = absl::AnyInvocable<absl::Status(size_t way)>;

  DeviceId ComputeDevice(const Pin& pin) const;
  // Whole, then by tiles; or by the tiles that are asked for.
  std::vector<PhaseMemory> DecodeWays(const Pin& vae, int64_t height, int64_t width,
                                      int64_t tile_size) const;
  std::vector<PhaseMemory> EncodeWays(const Pin& vae, int64_t height, int64_t width,
                                      int64_t tile_size) const;
  // DecodeMemory or EncodeMemory.
  using VaeMemory = PhaseMemory (*)(const LoadedComponent&, const DeviceId&, int64_t height,
                                    int64_t width, int64_t tile_size);
  std::vector<PhaseMemory> VaeWays(VaeMemory memory, const Pin& vae, int64_t height, int64_t width,
                                   int64_t tile_size) const;
  PhaseMemory SamplingMemoryOf(const Pin& model, const pipeline::SampleInputs& inputs,
                               const std::string& parallel, int preview_every) const;
  absl::StatusOr<text::Conditioning> Resolve(std::string_view field, const ConditioningRef& ref);
  // A phase on the pinned component's device, without its work; the forecast is what `units` of the
  // same took.
  Phase NewPhase(std::string name, const Pin& pin, double units) const;
  // `work` for a phase of NewPhase, whose time and memory are learned from; LibTorch's errors
  // become its status. Runs in the first of `ways` that there is memory for.
  absl::AnyInvocable<absl::Status()> Timed(const Phase& phase, const Pin& pin, double units,
                                           CancelTokenPtr cancel, Ways ways, WayWork work);
  absl::Status RunInAWay(const std::vector<PhaseMemory>& ways, const CancelToken& cancel,
                         absl::FunctionRef<absl::Status(size_t way)> work);
  // A request of one phase: `work` on what is pinned. `forecast` is of phases that are not timed.
  struct OnePhase {
    std::string name;
    double units = 1;
    int priority = 0;
    std::optional<PhaseForecast> forecast = {};
    std::vector<PhaseMemory> ways = {};
  };
  template <typename T>
  void RunOne(OnePhase what, Pin pin,
              absl::AnyInvocable<absl::StatusOr<T>(const Pin&, size_t way)> work,
              CancelTokenPtr cancel, InferCallbacks callbacks, Done<T> done);

  const std::vector<DeviceId> devices_;
  Registry* const registry_;
  PhaseRunner* const runner_;
  const InferServices services_;
  ConditioningCache conditionings_;
  PhaseCosts costs_;
};

}  // namespace distorch

#endif  // LIB_SERVING_INFERENCE_H_
