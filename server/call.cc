#include "server/call.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/status.h"

namespace distorch {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kClientIdKey[] = "x-client-id";
constexpr std::size_t kMaxId = 128;

// The client's metadata under `key`, where it is printable and not too long.
std::optional<std::string> Given(const grpc::CallbackServerContext& context, const char* key) {
  auto it = context.client_metadata().find(key);
  if (it == context.client_metadata().end()) return std::nullopt;
  const std::string_view given(it->second.data(), it->second.size());
  if (given.empty() || given.size() > kMaxId ||
      !std::all_of(given.begin(), given.end(), absl::ascii_isgraph)) {
    return std::nullopt;
  }
  return std::string(given);
}

// What the client calls itself, else its host: a peer is "ipv4:127.0.0.1:1234".
std::string ClientName(const grpc::CallbackServerContext& context) {
  if (auto given = Given(context, kClientIdKey)) return *std::move(given);
  const std::string peer = context.peer();
  return peer.substr(0, peer.rfind(':'));
}

std::string RequestId(const grpc::CallbackServerContext& context) {
  if (auto given = Given(context, kRequestIdKey)) return *std::move(given);
  absl::BitGen random;
  return absl::StrFormat("%016x", absl::Uniform<uint64_t>(random));
}

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

// The server's own faults are errors of the log; what clients ask wrongly is not.
Logger::Level LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return Logger::Level::kError;
    default:
      return Logger::Level::kInfo;
  }
}

}  // namespace

void CallMonitor::StopAdmitting() {
  absl::MutexLock lock(&mutex_);
  admitting_ = false;
}

bool CallMonitor::WaitUntilIdle(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &CallMonitor::Idle), deadline);
}

void CallMonitor::CancelAll(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  for (Call* call : calls_) call->cancel()->Cancel(reason);
}

absl::Status CallMonitor::Begin(Call* call) {
  absl::MutexLock lock(&mutex_);
  calls_.insert(call);
  return admitting_ ? absl::OkStatus() : absl::UnavailableError("the server is shutting down");
}

void CallMonitor::End(Call* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

Call::Call(CallMonitor* monitor, grpc::CallbackServerContext* context, std::string_view method)
    : monitor_(monitor),
      method_(method),
      peer_(context->peer()),
      client_(ClientName(*context)),
      request_id_(RequestId(*context)),
      cancel_(std::make_shared<CancelToken>(Deadline(*context))),
      admission_(monitor->Begin(this)) {
  context->AddInitialMetadata(kRequestIdKey, request_id_);
}

void Call::ClientGone() {
  const absl::Time deadline = cancel_->deadline();
  // Clients count from when they sent and give up first, and their timeouts were rounded up (by 1
  // %, at most) on the way.
  const absl::Duration slack = std::max(absl::Milliseconds(100), (deadline - start_) / 50);
  const bool expired = deadline != absl::InfiniteFuture() && absl::Now() + slack >= deadline;
  cancel_->Cancel(expired ? absl::DeadlineExceededError(
                                "the client's deadline passed before the answer was ready")
                          : absl::CancelledError("the client cancelled the call or went away"));
}

grpc::Status Call::Answer(const absl::Status& status) {
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  const std::string code = CodeName(status);
  monitor_->metrics_->RequestDone(method_, code, seconds);
  LogFields fields = {{"method", std::string(method_)},
                      {"code", code},
                      {"seconds", seconds},
                      {"request_id", request_id_},
                      {"peer", peer_}};
  // What is wrong with an argument may quote it, and prompts are arguments.
  if (!status.ok() && !absl::IsInvalidArgument(status))
    fields.emplace_back("error", std::string(status.message()));
  monitor_->logger_->Log(LevelOf(status.code()), "request", fields);
  return ToGrpcStatus(status);
}

void Call::End() { monitor_->End(this); }

}  // namespace distorch
