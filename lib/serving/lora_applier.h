// Applies adapters to loaded components.
#ifndef LIB_SERVING_LORA_APPLIER_H_
#define LIB_SERVING_LORA_APPLIER_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/streamer.h"
#include "lib/serving/checkpoint_folders.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/load_spec.h"
#include "lib/serving/registry.h"

namespace distorch {

namespace lora {
struct AdapterPlan;
}

// What it is given must outlive it. From one thread at a time, the loader's: both reserve memory.
// Handles that differ only in an adapter's strength share its tensors.
class LoraApplier {
 public:
  LoraApplier(const ModelFolders& folders, const DeviceManager& devices, Ledger* ledger,
              Registry* registry, Streamer* streamer);

  // The new handles name the old ones' content, the adapter's and its strength, so that equal
  // stacks have equal handles on every replica. After an error nothing of it stays allocated.
  // `may_fit_nothing`: to apply again to one handle what was applied to a model and a clip, of
  // which it changed the other.
  absl::StatusOr<ApplyLoraResult> Apply(const ApplyLoraSpec& spec, const CancelTokenPtr& cancel,
                                        bool may_fit_nothing = false);

  // Applies `lora` to what is pinned, for who has the pins alone: no handle names what comes of it,
  // and it goes with them.
  absl::Status ApplyTo(Pin* model, Pin* clip, const InferLora& lora, const CancelToken& cancel);

 private:
  struct Adapter;
  struct Derived;
  struct HeldTensors;
  class Skeletons;
  using Source = std::pair<Pin, double>;  // with the strength

  absl::StatusOr<Adapter> Open(const std::string& lora_name) const;
  // What becomes of the sources, in their order; `result` gets all but the handles.
  absl::StatusOr<std::vector<Derived>> Fit(const Adapter& adapter, std::vector<Source> sources,
                                           const CancelToken& cancel, bool may_fit_nothing,
                                           ApplyLoraResult* result);
  absl::StatusOr<Derived> Prepare(const Adapter& adapter, Pin source, double strength,
                                  Skeletons& skeletons) const;
  absl::Status Attach(const Adapter& adapter, Derived* derived, const CancelToken& cancel);
  // The tensors of the plan, on the device where `loaded` computes: those that are there, or read
  // now.
  absl::StatusOr<std::shared_ptr<const HeldTensors>> Tensors(const Adapter& adapter,
                                                             const lora::AdapterPlan& plan,
                                                             const LoadedComponent& loaded,
                                                             const CancelToken& cancel);
  absl::StatusOr<std::string> Publish(Derived derived, const std::string& lora_name) const;

  const ModelFolders& folders_;
  const DeviceManager& devices_;
  Ledger* const ledger_;
  Registry* const registry_;
  Streamer* const streamer_;
  // By the file's content, the kind of the component and the device.
  std::map<std::string, std::weak_ptr<const HeldTensors>> held_;
};

}  // namespace distorch

#endif  // LIB_SERVING_LORA_APPLIER_H_
