#include "lib/distorch/streamer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

// A ring takes at most this part of the memory that weights leave: activations need most of it.
constexpr int64_t kFreePart = 4;

// Smaller tensors share pages with others.
constexpr int64_t kLeastPinnedBytes = 256 << 10;

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

WeightStream::~WeightStream() {
  streamer_->Close(this);
  streamer_->pinned_bytes_.fetch_sub(pinned_bytes_);
}

void WeightStream::Pin(const StoredWeights& stored) {
  for (const at::Tensor& tensor : stored.tensors) {
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    if (!tensor.is_cpu() || bytes < kLeastPinnedBytes) continue;
    if (streamer_->pinned_bytes_.fetch_add(bytes) + bytes <= streamer_->options_.pinned_bytes) {
      if (auto pinned = PinnedMemory::Pin(tensor.data_ptr(), tensor.nbytes())) {
        pinned_.push_back(*std::move(pinned));
        pinned_bytes_ += bytes;
        continue;
      }
    }
    streamer_->pinned_bytes_.fetch_sub(bytes);
  }
}

void WeightStream::ComputeOn(const at::Device& device, int64_t elsewhere) {
  absl::MutexLock lock(&streamer_->mutex_);
  const StreamLane* lane = &streamer_->lane(device);
  for (Streamer::Place& place : streamer_->places_) {
    if (place.lane.get() == lane) place.elsewhere[this] = elsewhere;
  }
}

StagedWeights WeightStream::Bring(const StoredWeights& stored, const at::Device& device) const {
  return streamer_->lane(device).Bring(this, stored);
}

Streamer::Streamer(StreamerOptions options, const std::vector<c10::Device>& devices,
                   const LinkTable& links, TransferMeter* meter, Ledger* ledger)
    : options_(std::move(options)), cpu_index_(meter->cpu_index()), ledger_(ledger) {
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < devices.size(); ++i) {
    Place place;
    place.id = meter->devices()[i];
    place.lane = std::make_unique<StreamLane>(
        devices[i], static_cast<int>(i), links, options_.simulated,
        options_.wall_clock ? options_.wall_clock : SteadySeconds, meter);
    lanes_.push_back(place.lane.get());
    places_.push_back(std::move(place));
  }
}

StreamLane& Streamer::lane(const c10::Device& device) const {
  const int index = device.is_cpu() ? cpu_index_ : static_cast<int>(device.index());
  TORCH_CHECK(index >= 0 && index < static_cast<int>(lanes_.size()), "unknown device ", device);
  return *lanes_[static_cast<size_t>(index)];
}

std::unique_ptr<WeightStream> Streamer::Open() {
  return std::unique_ptr<WeightStream>(new WeightStream(this));
}

void Streamer::Close(const WeightStream* stream) {
  absl::MutexLock lock(&mutex_);
  for (Place& place : places_) {
    place.lane->Forget(stream);
    place.elsewhere.erase(stream);
    if (place.elsewhere.empty()) DropRing(place);
  }
}

void Streamer::FitRings(const BytesByDevice& free_now) {
  absl::MutexLock lock(&mutex_);
  for (Place& place : places_) {
    const auto free = free_now.find(place.id);
    Fit(place, free == free_now.end() ? 0 : free->second);
  }
}

void Streamer::Fit(Place& place, int64_t free_bytes) {
  int64_t use = 0;
  for (const auto& [stream, bytes] : place.elsewhere) use = std::max(use, bytes);
  const int64_t now = place.lane->ring_bytes();
  const int64_t bytes =
      std::min(RingSize(options_.staging_bytes, use), now + free_bytes / kFreePart);
  if (bytes <= now) return;
  DropRing(place);
  auto reserved = ledger_->Reserve("staging", {{place.id, bytes}}, {{place.id, free_bytes + now}},
                                   Ledger::Kind::kStaging);
  if (!reserved.ok() || !place.lane->SetRing(bytes).ok()) return;
  place.ring = *std::move(reserved);
  place.ring.Commit({{place.id, bytes}});
}

void Streamer::DropRing(Place& place) {
  // Freeing needs nothing that could be short.
  place.lane->SetRing(0).IgnoreError();
  place.ring.Release();
}

void Streamer::DropRings() {
  absl::MutexLock lock(&mutex_);
  for (Place& place : places_) DropRing(place);
}

BytesByDevice Streamer::RingBytes() const {
  absl::MutexLock lock(&mutex_);
  BytesByDevice bytes;
  for (const Place& place : places_) {
    if (const int64_t ring = place.lane->ring_bytes(); ring > 0) bytes[place.id] = ring;
  }
  return bytes;
}

}  // namespace distorch
