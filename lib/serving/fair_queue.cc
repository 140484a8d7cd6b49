#include "lib/serving/fair_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

// What a request weighs: one of which nothing is known as much as a second's.
double ChargeOf(const QueueClaim& claim) {
  constexpr double kUnknown = 1, kLeast = 1e-3, kMost = 1e4;
  return claim.weight > 0 ? std::clamp(claim.weight, kLeast, kMost) : kUnknown;
}

}  // namespace

FairQueue::FairQueue(std::string device, const QueueLimits& limits)
    : device_(std::move(device)), limits_(limits) {}

absl::Status FairQueue::CheckRoom(const std::string& client) const {
  if (static_cast<int>(places_.size()) > limits_.waiting) {
    return absl::ResourceExhaustedError(absl::StrCat(device_, ": ", places_.size() - 1,
                                                     " requests are waiting, which is the limit "
                                                     "(--queue_limit)"));
  }
  if (limits_.per_client == 0) return absl::OkStatus();
  const auto own = std::count_if(places_.begin(), places_.end(),
                                 [&](const auto& place) { return place.second.client == client; });
  if (own < limits_.per_client) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(device_, ": ", own, " requests of this client run or wait, which is the limit ",
                   "(--max_queued_per_client)"));
}

double FairQueue::StartOf(const std::string& client) const {
  const auto finish = finishes_.find(client);
  return finish == finishes_.end() ? virtual_now_ : std::max(virtual_now_, finish->second);
}

FairQueue::Place FairQueue::Enter(const QueueClaim& claim) {
  if (places_.empty()) finishes_.clear();  // the device was idle: everybody is even
  const Place place = ++last_place_;
  const Rank rank{-claim.priority, StartOf(claim.client), place};
  const double charge = ChargeOf(claim);
  finishes_[claim.client] = rank.start + charge;
  places_.emplace(rank, Entry{claim.client, charge, claim.seconds});
  ranks_.emplace(place, rank);
  return place;
}

void FairQueue::SetReady(Place place, bool ready) { places_.at(ranks_.at(place)).ready = ready; }

void FairQueue::SetSecondsLeft(Place place, double seconds) {
  places_.at(ranks_.at(place)).seconds_left = seconds;
}

bool FairQueue::HasReady() const {
  return std::any_of(places_.begin(), places_.end(),
                     [](const auto& place) { return place.second.ready; });
}

std::optional<FairQueue::Place> FairQueue::TakeNext() {
  for (auto& [rank, entry] : places_) {
    if (!entry.ready) continue;
    entry.ready = false;
    entry.has_run = true;
    running_ = rank.place;
    virtual_now_ = std::max(virtual_now_, rank.start);
    std::erase_if(finishes_, [&](const auto& finish) { return finish.second <= virtual_now_; });
    return running_;
  }
  return std::nullopt;
}

void FairQueue::Leave(Place place) {
  const auto rank = ranks_.find(place);
  const auto found = places_.find(rank->second);
  const Entry& entry = found->second;
  if (const auto finish = finishes_.find(entry.client);
      !entry.has_run && finish != finishes_.end() &&
      finish->second == rank->second.start + entry.charge) {
    finish->second = rank->second.start;
  }
  places_.erase(found);
  ranks_.erase(rank);
}

std::vector<FairQueue::Standing> FairQueue::Standings() const {
  std::vector<Standing> standings;
  double ahead = 0;
  for (const auto& [rank, entry] : places_) {
    if (rank.place == running_) continue;
    standings.push_back({rank.place, static_cast<int>(standings.size()) + 1, ahead, entry.ready});
    ahead += entry.seconds_left;
  }
  return standings;
}

double FairQueue::SecondsAhead(const QueueClaim& claim) const {
  const Rank rank{-claim.priority, StartOf(claim.client), last_place_ + 1};
  double ahead = 0;
  for (const auto& [other, entry] : places_) {
    if (rank < other) break;
    if (other.place != running_) ahead += entry.seconds_left;
  }
  return ahead;
}

double FairQueue::RunningSeconds() const {
  return HasRunning() ? places_.at(ranks_.at(running_)).seconds_left : 0;
}

}  // namespace distorch
