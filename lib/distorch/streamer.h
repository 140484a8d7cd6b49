// Brings weights from where they are stored to where they compute, ahead of the layers that ask for
// them: the order of a component's layers is learned in its first pass, and in later passes what
// comes next is copied into a ring of staging bytes on the compute device while it computes, from a
// pass's end on to the next one's beginning. A pass in another order is as right as any: what was
// not fetched is copied when it is asked for, and the order learned anew.
#ifndef LIB_DISTORCH_STREAMER_H_
#define LIB_DISTORCH_STREAMER_H_

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/links.h"
#include "lib/device/pinned_memory.h"
#include "lib/distorch/ledger.h"
#include "lib/distorch/stored_weights.h"
#include "lib/distorch/stream_lane.h"
#include "lib/distorch/transfer_meter.h"

namespace distorch {

struct StreamerOptions {
  // Of the ring on each compute device, at most; 0: nothing is fetched ahead.
  int64_t staging_bytes = 0;
  // Of host memory that is page-locked for copies to CUDA devices, at most, over all components.
  int64_t pinned_bytes = 0;
  // Whether the links' times are simulated (stream_lane.h).
  bool simulated = false;
  std::function<double()> wall_clock;  // seconds; empty: a steady clock
};

class Streamer;

// The weights of one component. Bring may be called from many threads.
class WeightStream {
 public:
  // Nothing of the component computes any more.
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // The component computes on `device` (too), and has `elsewhere` bytes that are not there: the
  // next FitRings gives it a ring.
  void ComputeOn(const at::Device& device, int64_t elsewhere);
  // Page-locks `stored` as far as it lies in host memory, is worth it, and the option allows; what
  // is not page-locked is copied all the same, if more slowly. It must stay where it is.
  void Pin(const StoredWeights& stored);
  // `stored`, which keeps its address, on `device`. Throws as LibTorch does.
  StagedWeights Bring(const StoredWeights& stored, const at::Device& device) const;

 private:
  friend class Streamer;
  explicit WeightStream(Streamer* streamer) : streamer_(streamer) {}
  Streamer* const streamer_;
  std::vector<PinnedMemory> pinned_;
  int64_t pinned_bytes_ = 0;
};

// Thread-safe. Rings are held in the ledger as "staging", and give way to loads.
class Streamer {
 public:
  // `devices` as LibTorch names those of `meter`, in its order. What it is given outlives it.
  Streamer(StreamerOptions options, const std::vector<c10::Device>& devices, const LinkTable& links,
           TransferMeter* meter, Ledger* ledger);

  std::unique_ptr<WeightStream> Open();

  // Gives every device that open streams compute on its ring (RingSize), of no more than a quarter
  // of the device's free memory. Never fails: a ring that does not fit is smaller, or there is
  // none. Call it when a load has ended.
  void FitRings(const BytesByDevice& free_now) ABSL_LOCKS_EXCLUDED(mutex_);
  // Frees all rings, until the next FitRings.
  void DropRings() ABSL_LOCKS_EXCLUDED(mutex_);
  BytesByDevice RingBytes() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Of the device `device` computes on: how far simulated time is ahead of the wall clock.
  const Timeline& timeline(const c10::Device& device) const { return lane(device).timeline(); }

 private:
  friend class WeightStream;
  struct Place {
    DeviceId id;
    std::unique_ptr<StreamLane> lane;
    Reservation ring;
    std::map<const WeightStream*, int64_t> elsewhere;  // what each computes with here, in bytes
  };

  StreamLane& lane(const c10::Device& device) const;
  void Close(const WeightStream* stream) ABSL_LOCKS_EXCLUDED(mutex_);
  void Fit(Place& place, int64_t free_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void DropRing(Place& place);

  const StreamerOptions options_;
  std::atomic<int64_t> pinned_bytes_{0};
  const int cpu_index_;
  Ledger* const ledger_;
  std::vector<StreamLane*> lanes_;  // those of places_: fixed, while what else they hold is not
  mutable absl::Mutex mutex_;
  std::vector<Place> places_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STREAMER_H_
