// A component's weights as a list of slots, in the order in which the reference builds its modules.
// A model's skeleton (lib/nn) declares its slots here while it is constructed; the planner,
// placement and accounting read them here.
#ifndef LIB_DISTORCH_WEIGHT_STORE_H_
#define LIB_DISTORCH_WEIGHT_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "lib/device/device_id.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/named_tensor.h"
#include "lib/distorch/planner.h"
#include "lib/distorch/weight_slot.h"

namespace distorch {

class Streamer;
class WeightStream;

// A part of a model that runs on one device as a whole (lib/nn/unit.h), with the slots from
// first_slot to before end_slot.
struct ExecutionUnit {
  std::string name;  // of the module, as the reference calls it
  size_t first_slot = 0, end_slot = 0;
  // Where it runs; nullopt: on the device where the evaluation of the model began.
  std::optional<at::Device> device;
  TransferMeter* meter = nullptr;  // of the activations it is given; set with `device`
};

// How a slot's weights may be missing from the file.
enum class IfMissing { kError, kIdentity };

// Not thread-safe while it is built; immutable afterwards but for PlaceWeights.
class WeightStore {
 public:
  // `tensors` is read only during construction of the skeleton.
  explicit WeightStore(const NamedTensors* tensors);
  ~WeightStore();

  // Declares the next block: parameter NAME.WEIGHT_NAME of `weight_shape` and, if `bias_size` > 0,
  // NAME.bias. A missing tensor, a wrong shape or a type that is no float is remembered for
  // status(), not returned: a skeleton is built whole, then judged. The weight's scale is
  // NAME.scale_weight, where there is one. The slot lives as long as the store.
  WeightSlot* Add(const std::string& name, const std::vector<int64_t>& weight_shape,
                  int64_t bias_size, IfMissing if_missing = IfMissing::kError,
                  bool has_bias_member = true, std::string_view weight_name = "weight");
  // Declares the next block as one without parameters (a norm that neither scales nor shifts): the
  // reference counts the module.
  void AddEmpty(const std::string& name);
  // Declares a tensor `name` that belongs to no block, such as a table of positions: it is not the
  // planner's to place, but lies on the compute device. Acquire yields it as weight().
  WeightSlot* AddBuffer(const std::string& name, const std::vector<int64_t>& shape);

  // The slots declared between the two are one unit. Units do not nest; slots outside units run
  // where the evaluation began. The unit lives as long as the store.
  const ExecutionUnit* BeginUnit(const std::string& name);
  void EndUnit();

  // INVALID_ARGUMENT listing the first few tensors that are missing or have an unexpected shape or
  // type.
  absl::Status status() const;

  // The blocks.
  const std::vector<std::unique_ptr<WeightSlot>>& slots() const { return slots_; }
  const std::vector<std::unique_ptr<WeightSlot>>& buffers() const { return buffers_; }
  const std::vector<std::unique_ptr<ExecutionUnit>>& units() const { return units_; }
  // The slots as the planner takes them, bytes as in the file.
  std::vector<Block> Blocks() const;
  // Bytes of the tensors by device, kDisk included; `devices` in DeviceManager's order.
  BytesByDevice StoredBytes(const std::vector<DeviceId>& devices) const;
  // Where each unit runs (ExecutionUnit::device), parallel to units(). Call it before use.
  void PlaceUnits(std::span<const std::optional<at::Device>> devices, TransferMeter* meter);
  // Fills all with the tensors and patches of `base`, the placed store of an equal skeleton,
  // without a copy (WeightSlot::Share); units run where those of `base` do. INTERNAL when it is
  // not.
  absl::Status Share(const WeightStore& base);
  // Lets `streamer`, which outlives the store, bring what is stored elsewhere to where it runs,
  // from now on: to the units' devices, and to `compute`. Call it when the slots are filled and the
  // units placed; again for a further device to compute on.
  void StreamTo(Streamer* streamer, const at::Device& compute);
  // Frees every slot's tensors.
  void Clear();

 private:
  // Remembers what is wrong with a tensor that is there.
  void Judge(const std::string& tensor_name, const Param& param);
  const TensorInfo* FindScale(const std::string& name);
  Param Declare(const std::string& tensor_name, const std::vector<int64_t>& shape,
                IfMissing if_missing);

  const NamedTensors* tensors_;
  std::vector<std::unique_ptr<WeightSlot>> slots_, buffers_;
  std::vector<std::unique_ptr<ExecutionUnit>> units_;  // in the order of their slots
  std::vector<std::string> problems_;
  std::unique_ptr<WeightStream> stream_;  // goes before what it brings
};

}  // namespace distorch

#endif  // LIB_DISTORCH_WEIGHT_STORE_H_
