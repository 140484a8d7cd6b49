// Who goes next on a device: a queue of places, without threads and clocks.
//
// Higher priorities go first. Among equals, clients share the device's time rather than take turns:
// start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996), each
// request weighing what it is predicted to take. A request takes its place in the queues of all
// devices it will use when it is admitted, and keeps it until it is done with the device, so that
// neither its later phases nor its waits elsewhere cost it its turn; while it has no work here,
// those behind it go ahead.
#ifndef LIB_SERVING_FAIR_QUEUE_H_
#define LIB_SERVING_FAIR_QUEUE_H_

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"

namespace distorch {

struct QueueClaim {
  std::string client;  // those without a name are one client
  int priority = 0;    // higher goes first
  double weight = 0;   // seconds of the device, as far as they can be guessed; 0: they cannot
  double seconds = 0;  // of these, what rests on runs and others may count on
};

struct QueueLimits {
  int waiting = 64;    // places beside one, which runs, or is to run next
  int per_client = 0;  // a client's places, the running one included; 0: no limit
};

// From one thread at a time.
class FairQueue {
 public:
  using Place = uint64_t;  // never 0

  // `device` is for messages.
  FairQueue(std::string device, const QueueLimits& limits);

  // RESOURCE_EXHAUSTED naming the limit when `client` gets no place now.
  absl::Status CheckRoom(const std::string& client) const;
  Place Enter(const QueueClaim& claim);
  // The place has work, or has none.
  void SetReady(Place place, bool ready);
  // Of what the claim was entered for, `seconds` are left.
  void SetSecondsLeft(Place place, double seconds);
  // The first place with work; it runs, and has no work, from now on. Only while none runs.
  std::optional<Place> TakeNext();
  // What was taken has run.
  void EndRunning() { running_ = 0; }
  // Gives the place up. One that never ran is not counted against its client, if the client has
  // entered none since.
  void Leave(Place place);

  int waiting() const { return static_cast<int>(places_.size()) - (HasRunning() ? 1 : 0); }
  bool HasReady() const;
  struct Standing {
    Place place = 0;
    int position = 0;          // 1: the next to run
    double seconds_ahead = 0;  // that those before it have left, where known, but the running one
    bool ready = false;
  };
  // All that wait, from the first to the last.
  std::vector<Standing> Standings() const;
  // Of a claim that entered now: as Standing's.
  double SecondsAhead(const QueueClaim& claim) const;
  // Of the running place; 0: none runs, or not known.
  double RunningSeconds() const;

 private:
  struct Rank {
    int less_urgent = 0;  // -priority
    double start = 0;     // in virtual seconds
    Place place = 0;

    auto operator<=>(const Rank&) const = default;
  };
  struct Entry {
    std::string client;
    double charge = 0;  // virtual seconds
    double seconds_left = 0;
    bool ready = false, has_run = false;
  };

  bool HasRunning() const { return running_ != 0 && ranks_.contains(running_); }
  double StartOf(const std::string& client) const;

  const std::string device_;
  const QueueLimits limits_;
  Place last_place_ = 0, running_ = 0;
  std::map<Rank, Entry> places_;
  std::unordered_map<Place, Rank> ranks_;
  double virtual_now_ = 0;                            // the latest start of what ran
  std::unordered_map<std::string, double> finishes_;  // virtual, of those ahead of virtual_now_
};

}  // namespace distorch

#endif  // LIB_SERVING_FAIR_QUEUE_H_
