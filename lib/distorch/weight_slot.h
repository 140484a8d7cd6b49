// The placement seam: a layer never holds a bare tensor, it holds a WeightSlot and asks it for
// weights where and in the type it computes in. Where they are stored, and how they get there, is
// unknown to the layer.
#ifndef LIB_DISTORCH_WEIGHT_SLOT_H_
#define LIB_DISTORCH_WEIGHT_SLOT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/device_id.h"
#include "lib/distorch/named_tensor.h"
#include "lib/distorch/stored_weights.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/distorch/weight_patch.h"

namespace distorch {

class WeightStream;

// Position of LibTorch's `device` in DeviceManager's order: accelerators by LibTorch index, cpu
// last.
inline size_t DeviceIndex(const at::Device& device, size_t device_count) {
  return device.is_cpu() ? device_count - 1 : static_cast<size_t>(device.index());
}

// The same in `meter`, where other devices may follow cpu.
inline int MeterIndex(const TransferMeter& meter, const at::Device& device) {
  return device.is_cpu() ? meter.cpu_index() : static_cast<int>(device.index());
}

// One parameter tensor of a slot.
struct Param {
  // Where it is in the checkpoint; absent for a parameter that the file lacks and that is the
  // identity matrix then (CLIP's text projection in SD1 files).
  std::optional<NamedTensor> source;
  std::vector<int64_t> shape;
  DType file_dtype = DType::kF32;
  // One float that the file's values are to be multiplied by ("NAME.scale_weight" of scaled fp8
  // files); nullptr: they are the values.
  const TensorInfo* scale = nullptr;

  int64_t elements() const;
  int64_t file_bytes() const { return BytesIn(file_dtype); }
  // Bytes of the parameter in `dtype`.
  int64_t BytesIn(DType dtype) const {
    return static_cast<int64_t>(BytesOf(dtype, static_cast<uint64_t>(elements())));
  }
};

// How one of a slot's tensors is stored.
struct StorageFormat {
  // Quantized: the tensor is the blocks' bytes.
  DType dtype = DType::kF32;
  float scale = 1;       // what is stored is to be multiplied by it
  float file_scale = 1;  // the parameter's values are the file's times this
};

// Weight and bias ready for one layer's forward pass. Copies brought from another device or
// converted live as long as the lease. Those that are not in the streamer's ring count as staging
// on the compute device until it is dropped. Move-only.
class WeightLease {
 public:
  // `hold`: on the ring's bytes that the tensors lie in, if any do.
  WeightLease(at::Tensor weight, at::Tensor bias, TransferMeter* meter, int device,
              int64_t staged_bytes, StagingHold hold = {});
  WeightLease(WeightLease&& other) noexcept;
  WeightLease& operator=(WeightLease&&) = delete;
  ~WeightLease();

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }  // undefined when the layer has none

 private:
  StagingHold hold_;  // goes after the tensors
  at::Tensor weight_, bias_;
  TransferMeter* meter_;
  int device_;
  int64_t staged_bytes_;
};

// The weight in the layout that a layer's kernel wants, as an opaque tensor of LibTorch's MKL-DNN
// layout with as many bytes; undefined when there is none.
using WeightPacker = absl::FunctionRef<at::Tensor(const at::Tensor& weight)>;

// The weights of one block (a module that owns parameters). Built empty with the model's skeleton,
// filled once by PlaceWeights, then constant and safe to use from many threads.
class WeightSlot {
 public:
  // `name` is the reference's module name; has_bias_member as in lib/distorch/planner.h.
  WeightSlot(std::string name, bool has_bias_member, std::vector<Param> params);

  const std::string& name() const { return name_; }
  bool has_bias_member() const { return has_bias_member_; }
  const std::vector<Param>& params() const {
    return params_;
  }  // weight, then bias where there is one
  int64_t file_bytes() const;

  // The weights on `device` in `dtype`. Resident ones are returned as they are; others are brought
  // there in their stored type (fewer bytes cross the link) and converted there: by the streamer,
  // ahead of this call where it knows the order, else now. Patched ones are
  // converted to float32, patched, and only then converted. Quantized ones are dequantized on
  // `device`. Throws c10::Error as LibTorch does, also out-of-memory: call it inside RunTorch. The
  // slot must be filled.
  WeightLease Acquire(const at::Device& device, at::ScalarType dtype) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The same for the device and type of `activations`.
  WeightLease Acquire(const at::Tensor& activations) const {
    return Acquire(activations.device(), activations.scalar_type());
  }
  // The same for a layer that also takes what `pack` makes of its weight: what is stored on the CPU
  // as it is used is packed at the first call, and from then on stored in that layout alone, not
  // in both. All other weights are as Acquire yields them.
  WeightLease AcquirePacked(const at::Tensor& activations, WeightPacker pack) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // PlaceWeights's side. `tensors` and `formats` parallel params(); the tensors lie on one device.
  // `meter` outlives the slot; its devices begin in DeviceManager's order (accelerators by LibTorch
  // index).
  // `source`: for weights that stay on disk; their tensors are of the meta device then.
  void Fill(std::vector<at::Tensor> tensors, std::vector<StorageFormat> formats,
            TransferMeter* meter, std::shared_ptr<const WeightSource> source = nullptr);
  // Instead of Fill: the stored tensors and the patches of `base`, a filled slot of another
  // component with the same parameters. Nothing is copied; the tensors live as long as either, and
  // stay in the layout that they have.
  void Share(const WeightSlot& base) ABSL_LOCKS_EXCLUDED(mutex_);
  bool filled() const ABSL_LOCKS_EXCLUDED(mutex_) { return !stored().empty(); }
  std::vector<at::Tensor> stored() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return stored_.tensors;
  }
  // Of a filled slot.
  at::Device device() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return stored_.device();
  }
  // For a slot with a stream: it stays as it is.
  const StoredWeights& stored_weights() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return stored_; }
  int64_t stored_bytes() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return stored_.bytes();
  }
  // Who brings the weights to where they compute; outlives what it brings. Null: they are copied
  // when they are asked for. Weights that have a stream are not packed.
  void set_stream(const WeightStream* stream) ABSL_LOCKS_EXCLUDED(mutex_);
  // What the file's values of a parameter were to be multiplied by; the slot is filled.
  float file_scale(size_t param) const { return formats_[param].file_scale; }
  void Clear() ABSL_LOCKS_EXCLUDED(mutex_);

  // The adapters' side, after Share and before use. `param` indexes params(). Patches apply in the
  // order in which they were added; `rounding` after them, when there are any.
  void AddPatch(size_t param, std::shared_ptr<const WeightPatch> patch);
  void set_rounding(size_t param, std::shared_ptr<const WeightPatch> rounding);

 private:
  struct Patches {
    std::vector<std::shared_ptr<const WeightPatch>> list;
    std::shared_ptr<const WeightPatch> rounding;
  };
  static at::Tensor ApplyPatches(const Patches& patches, at::Tensor parameter);
  StagedWeights Bring(const at::Device& device) const ABSL_NO_THREAD_SAFETY_ANALYSIS;  // as above
  // Parameter `i` in `dtype` from `raw`, its stored form where it is needed; `shared`: others use
  // `raw` as well.
  at::Tensor Prepare(size_t i, const at::Tensor& raw, bool shared, at::ScalarType dtype) const;

  std::string name_;
  bool has_bias_member_;
  std::vector<Param> params_;
  mutable absl::Mutex mutex_;
  // Changes, once it is filled, only in the layout of the weight. Elsewhere than on the CPU it does
  // not, nor where there is a stream: those who bring it read it without the lock.
  mutable StoredWeights stored_ ABSL_GUARDED_BY(mutex_);
  mutable bool may_pack_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<StorageFormat> formats_;  // parallel to stored_.tensors
  std::vector<Patches> patches_;        // parallel to params_
  TransferMeter* meter_ = nullptr;
  const WeightStream* stream_ = nullptr;
};

}  // namespace distorch

#endif  // LIB_DISTORCH_WEIGHT_SLOT_H_
