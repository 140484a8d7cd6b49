#include "lib/distorch/stream_lane.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/base/torch_status.h"
#include "lib/device/synchronize.h"

namespace distorch {
namespace {

// What the way between two accelerators is chosen for.
constexpr int64_t kTypicalBytes = 8 << 20;

int64_t Padded(int64_t bytes) {
  return (bytes + StagingRing::kAlignment - 1) / StagingRing::kAlignment * StagingRing::kAlignment;
}

// The ring's bytes for a block: each tensor begins where the ring's pieces may.
int64_t StagingBytes(const StoredWeights& stored) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : stored.tensors)
    bytes += Padded(static_cast<int64_t>(tensor.nbytes()));
  return bytes;
}

// Tensors formed as `stored` over the bytes of `storage` from `offset` on.
std::vector<at::Tensor> ViewsOf(const at::Tensor& bytes, int64_t offset,
                                const StoredWeights& stored) {
  std::vector<at::Tensor> views;
  for (const at::Tensor& like : stored.tensors) {
    at::Tensor view = at::empty({0}, bytes.options().dtype(like.scalar_type()));
    view.set_(bytes.storage(), offset / static_cast<int64_t>(like.element_size()), like.sizes(),
              like.strides());
    views.push_back(std::move(view));
    offset += Padded(static_cast<int64_t>(like.nbytes()));
  }
  return views;
}

std::optional<c10::Stream> NewStream(const at::Device& device) {
  if (IsHostMemory(device)) return std::nullopt;
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

int64_t Nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

}  // namespace

struct StreamLane::Ring {
  Ring(at::Tensor storage, TransferMeter* meter, int device)
      : bytes(std::move(storage)), pieces(bytes.numel()), meter(meter), device(device) {
    meter->AddStaging(device, bytes.numel());
  }
  ~Ring() { meter->AddStaging(device, -bytes.numel()); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  const at::Tensor bytes;
  StagingRing pieces;  // guarded by the lane's mutex
  TransferMeter* const meter;
  const int device;
};

struct StreamLane::Fetch {
  enum class State { kQueued, kCopying, kDone };

  Key key = nullptr;
  uint64_t turn = 0;
  StoredWeights stored;
  std::vector<at::Tensor> staged;
  std::shared_ptr<Ring> ring;
  int64_t offset = 0;
  const Way* way = nullptr;
  std::shared_ptr<c10::Event> after;  // to be waited for before the bytes are written

  // Written by who copies, under the lane's mutex but for what only it sees before kDone.
  State state = State::kQueued;
  bool dropped = false;
  absl::Status status;
  double arrival = 0;                    // on the timeline
  std::array<double, 2> seconds{};       // what the copy took by the wall clock
  std::optional<c10::Event> begin, end;  // on the copy stream
  std::optional<c10::Event> reached;     // on the computing stream, before it waited
};

StreamLane::StreamLane(at::Device device, int index, const LinkTable& links, bool simulated,
                       std::function<double()> wall_clock, TransferMeter* meter)
    : device_(device),
      index_(index),
      simulated_(simulated),
      wall_clock_(wall_clock),
      meter_(meter),
      timeline_(std::move(wall_clock)),
      copy_stream_(NewStream(device)) {
  std::vector<LinkSpeed> speeds;
  for (const DeviceId& from : meter->devices()) ways_.push_back(MakeWay(links, from, &speeds));
  queues_.emplace(std::move(speeds));
}

StreamLane::~StreamLane() {
  std::thread thread;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

c10::Stream StreamLane::ComputeStream() const {
  return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
}

int StreamLane::AddLink(const LinkTable& links, const DeviceId& from, const DeviceId& to,
                        std::vector<LinkSpeed>* speeds) {
  const LinkSpeed* speed = links.Find(from, to);
  if (speed == nullptr) return -1;
  // Ways through the host share its link.
  for (const Way& way : ways_) {
    const int known[] = {way.path.first, way.path.second};
    for (size_t i = 0; i < way.hops.size(); ++i) {
      const auto& [known_from, known_to] = way.hops[i];
      if (known_from == meter_->IndexOf(from) && known_to == meter_->IndexOf(to)) return known[i];
    }
  }
  speeds->push_back(*speed);
  return static_cast<int>(speeds->size()) - 1;
}

StreamLane::Way StreamLane::MakeWay(const LinkTable& links, const DeviceId& from,
                                    std::vector<LinkSpeed>* speeds) {
  const DeviceId host;
  const DeviceId& here = meter_->devices()[static_cast<size_t>(index_)];
  Way way;
  const LinkSpeed* direct = links.Find(from, here);
  const LinkSpeed* up = links.Find(from, host);
  const LinkSpeed* down = links.Find(host, here);
  way.through_host =
      direct != nullptr && up != nullptr && down != nullptr && !from.is_disk() &&
      up->Seconds(kTypicalBytes) + down->Seconds(kTypicalBytes) < direct->Seconds(kTypicalBytes);
  const int from_index = meter_->IndexOf(from), host_index = meter_->cpu_index();
  if (!here.is_cpu() && (way.through_host || from.is_disk())) {
    way.hops = {{from_index, host_index}, {host_index, index_}};
    way.path.first = AddLink(links, from, host, speeds);
    way.path.second = AddLink(links, host, here, speeds);
  } else {
    way.hops = {{from_index, index_}};
    way.path.first = AddLink(links, from, here, speeds);
  }
  return way;
}

const StreamLane::Way& StreamLane::WayFrom(const StoredWeights& stored) const {
  const at::Device from = stored.device();
  const int index = stored.on_disk() ? meter_->IndexOf(kDisk)
                    : from.is_cpu()  ? meter_->cpu_index()
                                     : static_cast<int>(from.index());
  TORCH_CHECK(index >= 0 && index < static_cast<int>(ways_.size()), "no way from ", from);
  return ways_[static_cast<size_t>(index)];
}

StagedWeights StreamLane::Bring(Key key, const StoredWeights& stored) {
  if (std::optional<StagedWeights> staged = BringStaged(key, stored)) return *std::move(staged);
  StagedWeights copied = CopyNow(stored);
  absl::MutexLock lock(&mutex_);
  FetchAhead();
  return copied;
}

std::optional<StagedWeights> StreamLane::BringStaged(Key key, const StoredWeights& stored) {
  absl::MutexLock lock(&mutex_);
  CountFinished();
  if (ring_ == nullptr) return std::nullopt;
  const FetchPtr fetch = Take(Activate(key), stored);
  if (fetch == nullptr) return std::nullopt;
  Await(fetch);
  if (!fetch->status.ok()) {
    // Whatever it was, out-of-memory or a file that ends early, shows again if it is still there.
    Drop(fetch);
    return std::nullopt;
  }
  FetchAhead();
  return StagedWeights{
      std::move(fetch->staged),
      StagingHold([this, ring = fetch->ring, offset = fetch->offset] { GiveBack(ring, offset); })};
}

StagedWeights StreamLane::CopyNow(const StoredWeights& stored) {
  const Way& way = WayFrom(stored);
  StagedWeights copy;
  const CopyOptions options{.through_host = way.through_host};
  if (!simulated_) {
    copy.tensors = EmptyLike(stored, device_);
    const std::array<double, 2> seconds = CopyWeights(stored, copy.tensors, options);
    Count(way, stored.bytes(), seconds, seconds[0] + seconds[1]);
    return copy;
  }
  absl::MutexLock lock(&mutex_);
  const double arrival = queues_->Send(way.path, stored.bytes(), timeline_.now());
  timeline_.InNoTime([&] {
    copy.tensors = EmptyLike(stored, device_);
    CopyWeights(stored, copy.tensors, options);
  });
  Count(way, stored.bytes(), queues_->Seconds(way.path, stored.bytes()), timeline_.SkipTo(arrival));
  return copy;
}

StreamLane::Track& StreamLane::Activate(Key key) {
  if (active_ != key) {
    if (const auto before = tracks_.find(active_); before != tracks_.end()) DropAll(before->second);
    active_ = key;
  }
  return tracks_[key];
}

StreamLane::FetchPtr StreamLane::Take(Track& track, const StoredWeights& stored) {
  const std::optional<size_t> skipped = track.order.Use(&stored);
  const size_t round = track.order.round().size();
  if (!skipped) {
    DropAll(track);
    if (round > 0) Schedule(track, track.order.position());
    return nullptr;
  }
  if (!track.schedule) {
    Schedule(track, (track.order.position() + round - 1) % round);
  } else {
    track.schedule->SkipTo(track.schedule->turn() + *skipped);
  }
  const uint64_t turn = track.schedule->turn();
  while (!track.fetches.empty() && track.fetches.front()->turn < turn) {
    Drop(track.fetches.front());
    track.fetches.pop_front();
  }
  FetchAhead();
  track.schedule->SkipTo(turn + 1);
  if (track.fetches.empty() || track.fetches.front()->turn != turn) return nullptr;
  const FetchPtr fetch = std::move(track.fetches.front());
  track.fetches.pop_front();
  return fetch;
}

void StreamLane::Schedule(Track& track, size_t position) {
  std::vector<int64_t> bytes;
  for (const void* stored : track.order.round())
    bytes.push_back(StagingBytes(*static_cast<const StoredWeights*>(stored)));
  track.schedule.emplace(std::move(bytes), &ring_->pieces, position);
}

void StreamLane::FetchAhead() {
  if (ring_ == nullptr || active_ == nullptr) return;
  Track& track = tracks_[active_];
  if (!track.schedule) return;
  while (const std::optional<StreamSchedule::Fetch> next = track.schedule->Next()) {
    const void* stored = track.order.round()[next->turn % track.schedule->size()];
    if (Start(*static_cast<const StoredWeights*>(stored), *next).ok()) continue;
    // It will be brought when it is used.
    ring_->pieces.Release(next->offset);
    return;
  }
}

absl::Status StreamLane::Start(const StoredWeights& stored, const StreamSchedule::Fetch& next) {
  return RunTorch([&]() -> absl::Status {
    mutex_.AssertHeld();
    auto fetch = std::make_shared<Fetch>();
    fetch->key = active_;
    fetch->turn = next.turn;
    fetch->stored = stored;
    fetch->staged = ViewsOf(ring_->bytes, next.offset, stored);
    fetch->ring = ring_;
    fetch->offset = next.offset;
    fetch->way = &WayFrom(stored);
    fetch->after = last_use_;
    if (simulated_) {
      fetch->arrival = queues_->Send(fetch->way->path, stored.bytes(), timeline_.now());
      timeline_.InNoTime([&] { Copy(*fetch); });
      fetch->state = Fetch::State::kDone;
    } else {
      if (!thread_.joinable()) thread_ = std::thread([this] { RunCopies(); });
      queue_.push_back(fetch);
    }
    tracks_[active_].fetches.push_back(std::move(fetch));
    return absl::OkStatus();
  });
}

void StreamLane::Drop(const FetchPtr& fetch) {
  fetch->dropped = true;
  // Who copies gives the bytes back when it is done.
  if (fetch->state == Fetch::State::kCopying) return;
  std::erase(queue_, fetch);
  fetch->ring->pieces.Release(fetch->offset);
}

void StreamLane::DropAll(Track& track) {
  for (const FetchPtr& fetch : track.fetches) Drop(fetch);
  track.fetches.clear();
  track.schedule.reset();
}

void StreamLane::GiveBack(const std::shared_ptr<Ring>& ring, int64_t offset) {
  absl::MutexLock lock(&mutex_);
  ring->pieces.Release(offset);
  if (ring != ring_) return;
  // Called where a lease ends: nothing may be thrown.
  const absl::Status recorded = RunTorch([&]() -> absl::Status {
    mutex_.AssertHeld();
    if (!has_streams()) return absl::OkStatus();
    last_use_ = std::make_shared<c10::Event>(device_.type());
    last_use_->record(ComputeStream());
    return absl::OkStatus();
  });
  if (recorded.ok()) FetchAhead();
}

void StreamLane::Await(const FetchPtr& fetch) {
  const Way& way = *fetch->way;
  const int64_t bytes = fetch->stored.bytes();
  if (simulated_) {
    Count(way, bytes, queues_->Seconds(way.path, bytes), timeline_.SkipTo(fetch->arrival));
    return;
  }
  const double start = wall_clock_();
  const auto done = [&fetch] { return fetch->state == Fetch::State::kDone; };
  mutex_.Await(absl::Condition(&done));
  if (!fetch->status.ok()) return;
  if (!has_streams()) {
    Count(way, bytes, fetch->seconds, wall_clock_() - start);
    return;
  }
  fetch->reached.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  fetch->reached->record(ComputeStream());
  fetch->end->block(ComputeStream());
  timed_.push_back(fetch);
}

void StreamLane::Count(const Way& way, int64_t bytes, const std::array<double, 2>& seconds,
                       double wait) {
  const std::array<double, 2> exposed = ExposedSeconds(seconds, wait);
  for (size_t i = 0; i < way.hops.size(); ++i) {
    meter_->AddTransfer(way.hops[i].from, way.hops[i].to, bytes, Nanoseconds(exposed[i]),
                        Nanoseconds(seconds[i] - exposed[i]));
  }
}

void StreamLane::CountFinished() {
  while (!timed_.empty() && timed_.front()->end->query() && timed_.front()->reached->query()) {
    const Fetch& fetch = *timed_.front();
    const double waited = fetch.reached->elapsedTime(*fetch.end) * 1e-3;
    const double whole = fetch.begin->elapsedTime(*fetch.end) * 1e-3;
    const bool two_hops = fetch.way->hops.size() == 2;
    const std::array<double, 2> seconds =
        two_hops ? std::array{fetch.seconds[0], std::max(0.0, whole - fetch.seconds[0])}
                 : std::array{whole, 0.0};
    Count(*fetch.way, fetch.stored.bytes(), seconds, std::max(0.0, waited));
    timed_.pop_front();
  }
}

void StreamLane::Copy(Fetch& fetch) {
  fetch.status = RunTorch([&]() -> absl::Status {
    CopyOptions options{.through_host = fetch.way->through_host};
    if (!has_streams()) {
      fetch.seconds = CopyWeights(fetch.stored, fetch.staged, options);
      return absl::OkStatus();
    }
    const c10::StreamGuard guard(*copy_stream_);
    if (fetch.after != nullptr) fetch.after->block(*copy_stream_);
    fetch.begin.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    fetch.end.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    options.non_blocking = true;
    fetch.begin->record(*copy_stream_);
    fetch.seconds = CopyWeights(fetch.stored, fetch.staged, options);
    fetch.end->record(*copy_stream_);
    return absl::OkStatus();
  });
}

void StreamLane::RunCopies() {
  mutex_.Lock();
  while (true) {
    const auto wakes = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || !queue_.empty();
    };
    mutex_.Await(absl::Condition(&wakes));
    if (stopping_) break;
    copying_ = std::move(queue_.front());
    queue_.pop_front();
    copying_->state = Fetch::State::kCopying;
    Fetch& fetch = *copying_;
    mutex_.Unlock();
    Copy(fetch);
    mutex_.Lock();
    fetch.state = Fetch::State::kDone;
    if (fetch.dropped) fetch.ring->pieces.Release(fetch.offset);
    copying_ = nullptr;
  }
  mutex_.Unlock();
}

void StreamLane::Forget(Key key) {
  {
    absl::MutexLock lock(&mutex_);
    const auto track = tracks_.find(key);
    if (track == tracks_.end()) return;
    DropAll(track->second);
    tracks_.erase(track);
    if (active_ == key) active_ = nullptr;
    const auto idle = [this, key]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return copying_ == nullptr || copying_->key != key;
    };
    mutex_.Await(absl::Condition(&idle));
  }
  if (copy_stream_) c10::impl::VirtualGuardImpl(device_.type()).synchronizeStream(*copy_stream_);
}

absl::Status StreamLane::SetRing(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  // Without a ring nothing more is fetched into the old one, which lives as long as what uses it.
  std::shared_ptr<Ring> old = std::move(ring_);
  for (auto& [key, track] : tracks_) DropAll(track);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return copying_ == nullptr; };
  mutex_.Await(absl::Condition(&idle));
  return RunTorch([&]() -> absl::Status {
    mutex_.AssertHeld();
    if (has_streams() && old != nullptr) Synchronize(device_);
    old = nullptr;
    if (bytes == 0) return absl::OkStatus();
    ring_ = std::make_shared<Ring>(
        at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(device_)), meter_, index_);
    return absl::OkStatus();
  });
}

int64_t StreamLane::ring_bytes() const {
  absl::MutexLock lock(&mutex_);
  return ring_ == nullptr ? 0 : ring_->pieces.size();
}

}  // namespace distorch
