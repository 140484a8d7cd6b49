#include "lib/distorch/stream_schedule.h"

#include <algorithm>
#include <utility>

namespace distorch {
namespace {

// The ring's wraps are not in phase with the steps, so that steps differ a little: the first ones
// are not counted, and the next ones averaged.
constexpr int kWarmUpSteps = 2;
constexpr int kCountedSteps = 4;

// Runs steps against a clock that only the simulation moves.
class StepSimulation {
 public:
  StepSimulation(std::span<const StreamUnit> units, std::span<const LinkSpeed> links,
                 int64_t ring_bytes)
      : units_(units),
        links_(links),
        queues_({links.begin(), links.end()}),
        ring_(ring_bytes),
        schedule_(CrossingBytes(units), &ring_),
        fetched_(schedule_.size()) {
    result_.exposed_seconds.assign(links.size(), 0);
    result_.overlapped_seconds.assign(links.size(), 0);
  }

  StreamPrediction Run() && {
    for (int i = 0; i < kWarmUpSteps; ++i) Step();
    const double start = now_;
    result_.exposed_seconds.assign(links_.size(), 0);
    result_.overlapped_seconds.assign(links_.size(), 0);
    for (int i = 0; i < kCountedSteps; ++i) Step();
    result_.step_seconds = (now_ - start) / kCountedSteps;
    for (size_t i = 0; i < links_.size(); ++i) {
      result_.exposed_seconds[i] /= kCountedSteps;
      result_.overlapped_seconds[i] /= kCountedSteps;
    }
    return std::move(result_);
  }

 private:
  struct Fetched {
    int64_t offset = -1;  // -1: not in the ring
    double ready = 0;
  };

  static bool Crosses(const StreamUnit& unit) { return unit.link >= 0 && unit.bytes > 0; }

  static std::vector<int64_t> CrossingBytes(std::span<const StreamUnit> units) {
    std::vector<int64_t> bytes;
    for (const StreamUnit& unit : units) {
      if (Crosses(unit)) bytes.push_back(unit.bytes);
    }
    return bytes;
  }

  void Step() {
    if (crossing_.empty()) {
      for (const StreamUnit& unit : units_) {
        if (Crosses(unit)) crossing_.push_back(&unit);
      }
    }
    for (const StreamUnit& unit : units_) {
      if (!Crosses(unit)) {
        now_ += unit.compute_seconds;
        continue;
      }
      FetchAhead();
      const uint64_t turn = schedule_.turn();
      Fetched& fetched = fetched_[turn % schedule_.size()];
      const int64_t offset = std::exchange(fetched.offset, -1);
      Wait(unit, offset >= 0 ? fetched.ready : Transfer(unit));
      schedule_.SkipTo(turn + 1);
      FetchAhead();
      now_ += unit.compute_seconds;
      if (offset < 0) continue;
      ring_.Release(offset);
      FetchAhead();
    }
  }

  void FetchAhead() {
    while (const std::optional<StreamSchedule::Fetch> next = schedule_.Next()) {
      const size_t position = next->turn % schedule_.size();
      fetched_[position] = {next->offset, Transfer(*crossing_[position])};
      result_.peak_staging_bytes = std::max(result_.peak_staging_bytes, ring_.used_bytes());
    }
  }

  // Starts the unit's copy now; when it is there.
  double Transfer(const StreamUnit& unit) { return queues_.Send(unit.path(), unit.bytes, now_); }

  // Until the unit's bytes are there. A wait never exceeds the unit's own transfer: what precedes
  // it on its links was waited for before.
  void Wait(const StreamUnit& unit, double ready) {
    const double wait = std::max(0.0, ready - now_);
    now_ += wait;
    const std::array<double, 2> seconds = queues_.Seconds(unit.path(), unit.bytes);
    const std::array<double, 2> exposed = ExposedSeconds(seconds, wait);
    const int links[] = {unit.link, unit.second_link};
    for (size_t i = 0; i < 2; ++i) {
      if (links[i] < 0) continue;
      const auto link = static_cast<size_t>(links[i]);
      result_.exposed_seconds[link] += exposed[i];
      result_.overlapped_seconds[link] += seconds[i] - exposed[i];
    }
  }

  const std::span<const StreamUnit> units_;
  const std::span<const LinkSpeed> links_;
  LinkQueues queues_;
  StagingRing ring_;
  StreamSchedule schedule_;
  std::vector<const StreamUnit*> crossing_;  // those that cross a link, in their order
  std::vector<Fetched> fetched_;             // parallel to crossing_
  double now_ = 0;
  StreamPrediction result_;
};

}  // namespace

std::optional<int64_t> StagingRing::Allocate(int64_t bytes) {
  const int64_t padded = Padded(bytes);
  if (padded > size_) return std::nullopt;
  int64_t begin = 0;
  if (!pieces_.empty()) {
    const int64_t oldest = pieces_.front().begin;
    begin = pieces_.back().end;
    bool wrapped = pieces_.back().begin < oldest;
    if (!wrapped && begin + padded > size_) {
      begin = 0;
      wrapped = true;
    }
    if (wrapped && begin + padded > oldest) return std::nullopt;
  }
  pieces_.push_back({begin, begin + padded});
  used_ += padded;
  return begin;
}

void StagingRing::Release(int64_t offset) {
  const auto piece = std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& taken) {
    return taken.begin == offset && !taken.released;
  });
  if (piece == pieces_.end()) return;
  piece->released = true;
  while (!pieces_.empty() && pieces_.front().released) {
    used_ -= pieces_.front().end - pieces_.front().begin;
    pieces_.pop_front();
  }
}

int64_t RingSize(int64_t staging_bytes, int64_t elsewhere) {
  return std::min(staging_bytes, elsewhere / 2);
}

StreamSchedule::StreamSchedule(std::vector<int64_t> bytes, StagingRing* ring, uint64_t first)
    : bytes_(std::move(bytes)), ring_(ring), turn_(first), next_fetch_(first) {}

std::optional<StreamSchedule::Fetch> StreamSchedule::Next() {
  next_fetch_ = std::max(next_fetch_, turn_);
  if (next_fetch_ == turn_ + bytes_.size()) return std::nullopt;
  const std::optional<int64_t> offset = ring_->Allocate(bytes_[next_fetch_ % bytes_.size()]);
  if (!offset) return std::nullopt;
  return Fetch{next_fetch_++, *offset};
}

LinkQueues::LinkQueues(std::vector<LinkSpeed> links)
    : links_(std::move(links)), free_(links_.size(), 0) {}

double LinkQueues::Send(const LinkPath& path, int64_t bytes, double earliest) {
  const std::array<double, 2> seconds = Seconds(path, bytes);
  const int links[] = {path.first, path.second};
  for (size_t i = 0; i < 2; ++i) {
    if (links[i] < 0) continue;
    double& free = free_[static_cast<size_t>(links[i])];
    free = std::max(free, earliest) + seconds[i];
    earliest = free;
  }
  return earliest;
}

std::array<double, 2> LinkQueues::Seconds(const LinkPath& path, int64_t bytes) const {
  const auto seconds = [&](int link) {
    return link < 0 ? 0 : links_[static_cast<size_t>(link)].Seconds(bytes);
  };
  return {seconds(path.first), seconds(path.second)};
}

std::array<double, 2> ExposedSeconds(const std::array<double, 2>& seconds, double wait) {
  const double second = std::min(wait, seconds[1]);
  return {std::min(wait - second, seconds[0]), second};
}

StreamPrediction PredictStep(std::span<const StreamUnit> units, std::span<const LinkSpeed> links,
                             int64_t ring_bytes) {
  return StepSimulation(units, links, ring_bytes).Run();
}

}  // namespace distorch
