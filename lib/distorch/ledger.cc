#include "lib/distorch/ledger.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr size_t kHoldersShown = 4;

int64_t BytesOn(const BytesByDevice& bytes, const DeviceId& device) {
  const auto it = bytes.find(device);
  return it == bytes.end() ? 0 : it->second;
}

std::string TableRow(std::string_view device, std::string_view need, std::string_view free,
                     std::string_view reserved, std::string_view held_by) {
  return absl::StrFormat("\n  %-8s %12s %12s %12s  %s", device, need, free, reserved, held_by);
}

}  // namespace

Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)), id_(other.id_) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    ledger_ = std::exchange(other.ledger_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

Reservation::~Reservation() { Release(); }

void Reservation::Commit(const BytesByDevice& measured) {
  if (ledger_ != nullptr) ledger_->Commit(id_, measured);
}

void Reservation::Release() {
  if (ledger_ != nullptr) ledger_->Release(id_);
}

BytesByDevice Reservation::bytes() const {
  return ledger_ == nullptr ? BytesByDevice() : ledger_->Bytes(id_);
}

Ledger::Ledger(std::vector<DeviceMemory> devices, Allocated allocated)
    : devices_(std::move(devices)), allocated_(std::move(allocated)) {}

absl::StatusOr<Reservation> Ledger::Reserve(std::string holder, const BytesByDevice& need,
                                            const BytesByDevice& free_now, Kind kind) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckLocked(need, free_now));
  const uint64_t id = next_id_++;
  CountChange(need);
  entries_.emplace(id, Entry{.holder = std::move(holder), .bytes = need, .kind = kind});
  return Reservation(this, id);
}

absl::Status Ledger::Check(const BytesByDevice& need, const BytesByDevice& free_now) const {
  absl::MutexLock lock(&mutex_);
  return CheckLocked(need, free_now);
}

BytesByDevice Ledger::Lacking(const BytesByDevice& need, const BytesByDevice& free_now) const {
  absl::MutexLock lock(&mutex_);
  BytesByDevice lacking;
  for (const DeviceMemory& device : devices_) {
    const DeviceState state = State(device, free_now);
    const int64_t bytes = BytesOn(need, device.device);
    const int64_t missing = bytes - (state.free_bytes - state.pending_bytes);
    if (bytes > 0 && missing > 0) lacking[device.device] = missing;
  }
  return lacking;
}

std::string Ledger::HoldersOf(const DeviceId& device, const BytesByDevice& free_now) const {
  absl::MutexLock lock(&mutex_);
  for (const DeviceMemory& known : devices_) {
    if (known.device == device) return Holders(known, State(known, free_now));
  }
  return "nobody";
}

std::map<DeviceId, Ledger::DeviceUse> Ledger::Use() const {
  absl::MutexLock lock(&mutex_);
  std::map<DeviceId, DeviceUse> use;
  for (const DeviceMemory& device : devices_) use[device.device] = State(device, {}).use;
  return use;
}

void Ledger::CountChange(const BytesByDevice& bytes) {
  ++changes_;
  for (const auto& [device, count] : bytes) {
    if (count > 0) ++changes_on_[device];
  }
}

uint64_t Ledger::changes() const {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

uint64_t Ledger::changes_on(const DeviceId& device) const {
  absl::MutexLock lock(&mutex_);
  const auto found = changes_on_.find(device);
  return found == changes_on_.end() ? 0 : found->second;
}

void Ledger::AwaitChange(uint64_t seen, absl::Time deadline, const std::stop_token& stop) const {
  // Conditions are looked at again whenever the mutex is released.
  const std::stop_callback wake(stop, [this] { absl::MutexLock lock(&mutex_); });
  const auto is_over = [this, seen, &stop]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return changes_ != seen || stop.stop_requested();
  };
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithDeadline(absl::Condition(&is_over), deadline);
}

void Ledger::Commit(uint64_t id, const BytesByDevice& measured) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  CountChange(it->second.bytes);
  CountChange(measured);
  it->second.bytes = measured;
  it->second.committed = true;
}

void Ledger::Release(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  CountChange(it->second.bytes);
  entries_.erase(it);
}

BytesByDevice Ledger::Bytes(uint64_t id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? BytesByDevice() : it->second.bytes;
}

Ledger::DeviceState Ledger::State(const DeviceMemory& device, const BytesByDevice& free_now) const {
  DeviceState state;
  for (const auto& [id, entry] : entries_) {
    int64_t& bytes = entry.kind == Kind::kActivations ? state.use.activation_bytes
                     : !entry.committed               ? state.use.reserved_bytes
                     : entry.kind == Kind::kStaging   ? state.use.staging_bytes
                                                      : state.use.weights_bytes;
    bytes += BytesOn(entry.bytes, device.device);
  }
  const int64_t promised = state.use.promised_bytes();
  const std::optional<int64_t> allocated = allocated_ ? allocated_(device.device) : std::nullopt;
  state.taken_bytes = allocated
                          ? std::clamp<int64_t>(*allocated - state.use.held_bytes(), 0, promised)
                          : state.use.activation_bytes;
  state.pending_bytes = promised - state.taken_bytes;
  state.free_bytes =
      std::max<int64_t>(0, device.total_bytes - state.use.held_bytes() - state.taken_bytes);
  if (const auto it = free_now.find(device.device); it != free_now.end()) {
    state.free_bytes = std::min(state.free_bytes, it->second);
  }
  return state;
}

std::string Ledger::Holders(const DeviceMemory& device, const DeviceState& state) const {
  std::vector<std::pair<int64_t, std::string>> holders;
  for (const auto& [id, entry] : entries_) {
    const int64_t bytes = BytesOn(entry.bytes, device.device);
    const bool loads = !entry.committed && entry.kind != Kind::kActivations;
    if (bytes > 0)
      holders.emplace_back(bytes, absl::StrCat(entry.holder, loads ? " (loading)" : ""));
  }
  std::stable_sort(holders.begin(), holders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });

  std::vector<std::string> parts;
  int64_t rest = 0;
  for (size_t i = 0; i < holders.size(); ++i) {
    if (i < kHoldersShown) {
      parts.push_back(absl::StrCat(FormatBytes(holders[i].first), " ", holders[i].second));
    } else {
      rest += holders[i].first;
    }
  }
  if (rest > 0)
    parts.push_back(absl::StrCat(FormatBytes(rest), " ", holders.size() - kHoldersShown, " more"));
  const int64_t others =
      device.total_bytes - state.use.held_bytes() - state.taken_bytes - state.free_bytes;
  if (others > 0)
    parts.push_back(absl::StrCat(FormatBytes(others), " not weights or staging of this server"));
  return parts.empty() ? "nobody" : absl::StrJoin(parts, ", ");
}

absl::Status Ledger::CheckLocked(const BytesByDevice& need, const BytesByDevice& free_now) const {
  std::string rows;
  for (const auto& [id, bytes] : need) {
    const auto device =
        std::find_if(devices_.begin(), devices_.end(),
                     [&id = id](const DeviceMemory& known) { return known.device == id; });
    if (device == devices_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the ledger knows no device ", id.ToString()));
    }
    if (bytes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a need of ", bytes, " bytes on ", id.ToString(), " is negative"));
    }
    const DeviceState state = State(*device, free_now);
    if (bytes == 0 || bytes <= state.free_bytes - state.pending_bytes) continue;
    rows += TableRow(id.ToString(), FormatBytes(bytes), FormatBytes(state.free_bytes),
                     FormatBytes(state.pending_bytes), Holders(*device, state));
  }
  if (rows.empty()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "not enough device memory: needed is more than free less reserved (by loads and requests "
      "under way)",
      TableRow("device", "needed", "free", "reserved", "held by"), rows));
}

}  // namespace distorch
