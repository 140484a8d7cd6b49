// The calls that compute on loaded components.
#ifndef LIB_SERVING_INFERENCE_H_
#define LIB_SERVING_INFERENCE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_id.h"
#include "lib/pipeline/vae.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/conditioning_cache.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/infer_job.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/observer.h"
#include "lib/serving/phase_costs.h"
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
  DeviceId ComputeDevice(const Pin& pin) const;
  pipeline::VaeOptions VaeOptions(int tile_size) const;
  absl::StatusOr<text::Conditioning> Resolve(std::string_view field, const ConditioningRef& ref);
  // A phase on the pinned component's device, without its work; the forecast is what `units` of the
  // same took.
  Phase NewPhase(std::string name, const Pin& pin, double units) const;
  // `work` for a phase of NewPhase, which is learned from; LibTorch's errors become its status, but
  // where memory lacks, room is made.
  absl::AnyInvocable<absl::Status()> Timed(const Phase& phase, const Pin& pin, double units,
                                           absl::AnyInvocable<absl::Status()> work);
  // A request of one phase: `work` on what is pinned. `forecast` is of phases that are not timed.
  struct OnePhase {
    std::string name;
    double units = 1;
    int priority = 0;
    std::optional<PhaseForecast> forecast;
  };
  template <typename T>
  void RunOne(OnePhase what, Pin pin, absl::AnyInvocable<absl::StatusOr<T>(const Pin&)> work,
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
