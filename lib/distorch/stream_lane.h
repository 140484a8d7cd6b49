// One compute device's side of the streamer: its staging ring, what is being fetched into it, and
// the order in which each component uses what it has elsewhere.
#ifndef LIB_DISTORCH_STREAM_LANE_H_
#define LIB_DISTORCH_STREAM_LANE_H_

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "lib/device/links.h"
#include "lib/distorch/stored_weights.h"
#include "lib/distorch/stream_order.h"
#include "lib/distorch/stream_schedule.h"
#include "lib/distorch/timeline.h"
#include "lib/distorch/transfer_meter.h"

namespace distorch {

// Thread-safe. Copies run on a thread of the lane's own, and on a CUDA device on a stream of their
// own. On a simulated device whose links have speeds they take no wall time: they are made at once,
// and arrive on the lane's timeline when the links say.
class StreamLane {
 public:
  // The names of a component's weights in a lane; never followed.
  using Key = const void*;

  // `device` is LibTorch's name of the device at `index` in `meter`. `links` are the process's;
  // `simulated` ones are obeyed, others only choose the way. `wall_clock` gives seconds.
  StreamLane(at::Device device, int index, const LinkTable& links, bool simulated,
             std::function<double()> wall_clock, TransferMeter* meter);
  // Every hold is gone.
  ~StreamLane();
  StreamLane(const StreamLane&) = delete;
  StreamLane& operator=(const StreamLane&) = delete;

  // `stored`, which lies elsewhere and keeps its address, on the lane's device. Fetches what
  // `key`'s uses so far say comes next. Throws as LibTorch does.
  StagedWeights Bring(Key key, const StoredWeights& stored) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends every fetch for `key`: nothing of it is read or held any more but by leases.
  void Forget(Key key) ABSL_LOCKS_EXCLUDED(mutex_);

  // Replaces the ring; what was fetched into the old one is dropped. 0: no ring, every transfer is
  // waited for. After RESOURCE_EXHAUSTED there is none.
  absl::Status SetRing(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t ring_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

  const Timeline& timeline() const { return timeline_; }

 private:
  // How weights come from one device: positions in the meter, and in queues_.
  struct Way {
    struct Hop {
      int from = -1, to = -1;
    };
    std::vector<Hop> hops;  // one or two
    LinkPath path;
    bool through_host = false;
  };
  struct Ring;
  struct Fetch;
  using FetchPtr = std::shared_ptr<Fetch>;
  // A component's weights here.
  struct Track {
    StreamOrder order;
    std::optional<StreamSchedule> schedule;  // once the order is known, while the track is active
    std::deque<FetchPtr> fetches;            // by turn
  };

  bool has_streams() const { return !IsHostMemory(device_); }
  // The stream that this thread computes on.
  c10::Stream ComputeStream() const;
  int AddLink(const LinkTable& links, const DeviceId& from, const DeviceId& to,
              std::vector<LinkSpeed>* speeds);
  Way MakeWay(const LinkTable& links, const DeviceId& from, std::vector<LinkSpeed>* speeds);
  const Way& WayFrom(const StoredWeights& stored) const;

  std::optional<StagedWeights> BringStaged(Key key, const StoredWeights& stored)
      ABSL_LOCKS_EXCLUDED(mutex_);
  StagedWeights CopyNow(const StoredWeights& stored) ABSL_LOCKS_EXCLUDED(mutex_);

  Track& Activate(Key key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The fetch of this use, if there is one.
  FetchPtr Take(Track& track, const StoredWeights& stored) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Schedule(Track& track, size_t position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FetchAhead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Start(const StoredWeights& stored, const StreamSchedule::Fetch& next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const FetchPtr& fetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropAll(Track& track) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(const std::shared_ptr<Ring>& ring, int64_t offset) ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits for the fetch; how its seconds fall on the wait is counted.
  void Await(const FetchPtr& fetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const Way& way, int64_t bytes, const std::array<double, 2>& seconds, double wait);
  // Counts the seconds of transfers on the device's streams that have ended by now.
  void CountFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void RunCopies() ABSL_LOCKS_EXCLUDED(mutex_);
  void Copy(Fetch& fetch);

  const at::Device device_;
  const int index_;
  const bool simulated_;
  const std::function<double()> wall_clock_;
  TransferMeter* const meter_;
  std::vector<Way> ways_;  // by the meter's position of where weights are stored
  Timeline timeline_;
  const std::optional<c10::Stream> copy_stream_;

  mutable absl::Mutex mutex_;
  std::optional<LinkQueues> queues_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Ring> ring_ ABSL_GUARDED_BY(mutex_);
  std::map<Key, Track> tracks_ ABSL_GUARDED_BY(mutex_);
  Key active_ ABSL_GUARDED_BY(mutex_) = nullptr;  // whose order is followed
  std::deque<FetchPtr> queue_ ABSL_GUARDED_BY(mutex_);
  FetchPtr copying_ ABSL_GUARDED_BY(mutex_);
  std::deque<FetchPtr> timed_ ABSL_GUARDED_BY(mutex_);  // on streams, seconds not counted yet
  // What the device still computes with bytes of the ring that are free otherwise.
  std::shared_ptr<c10::Event> last_use_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);  // once there is something to copy
};

}  // namespace distorch

#endif  // LIB_DISTORCH_STREAM_LANE_H_
