// Memory for the activations of requests: a phase of one holds what it is expected to need while it
// runs, and what it took is learned.
#ifndef LIB_SERVING_ACTIVATION_ROOM_H_
#define LIB_SERVING_ACTIVATION_ROOM_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/base/cancellation.h"
#include "lib/device/device_manager.h"
#include "lib/distorch/ledger.h"
#include "lib/serving/activation_estimates.h"
#include "lib/serving/observer.h"
#include "lib/serving/room_maker.h"

namespace distorch {

// What is known of a phase's activations when it begins.
struct PhaseMemory {
  std::string holder;  // for tables of who holds what
  ActivationKey key;
  ActivationNeeds counted;  // on each device that it computes on, from the model's shapes
};

// What it is given must outlive it. Thread-safe.
class ActivationRoom {
 public:
  ActivationRoom(const DeviceManager& devices, Ledger* ledger, const RoomMaker* room_maker,
                 Observer* observer)
      : devices_(devices), ledger_(ledger), room_maker_(room_maker), observer_(observer) {}

  // Runs `work`, which allocates on memory.counted's devices, and holds its memory meanwhile.
  // Where what is expected does not fit, room is made for what it needs at least (RoomMaker), and
  // what other phases and loads under way hold is waited for, until `cancel` ends that. What does
  // not fit then is refused before it starts: RESOURCE_EXHAUSTED with what is needed, what is free,
  // and who holds what. An estimate that may be too high refuses nothing: the phase gets what there
  // is. Where memory lacks all the same, RoomMaker::RunWithRoom: `work` may be run several times.
  absl::Status Run(const PhaseMemory& memory, const CancelToken& cancel,
                   absl::FunctionRef<absl::Status()> work);

  // What Run would expect.
  ActivationNeeds Estimate(const PhaseMemory& memory) const;

 private:
  struct Hold {
    Reservation reservation;
    BytesByDevice bytes;
    bool made_room = false;
  };
  absl::StatusOr<Hold> Admit(const PhaseMemory& memory, const CancelToken& cancel) const;
  // Whether others than a phase that is not admitted yet have promises that end on `devices`.
  bool OthersRunOn(const BytesByDevice& devices) const;
  // Tells the observer, and learns.
  void Learn(const PhaseMemory& memory, const BytesByDevice& peaks);
  // Runs `work` once, and learns from it.
  absl::Status Measure(const PhaseMemory& memory, const BytesByDevice& held,
                       absl::FunctionRef<absl::Status()> work);

  const DeviceManager& devices_;
  Ledger* const ledger_;
  const RoomMaker* const room_maker_;
  Observer* const observer_;
  ActivationEstimates estimates_;
};

}  // namespace distorch

#endif  // LIB_SERVING_ACTIVATION_ROOM_H_
