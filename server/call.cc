#include "server/call.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "server/status.h"

namespace distorch {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kClientIdKey[] = "x-client-id";
constexpr char kTraceparentKey[] = "traceparent";
constexpr char kAuthorizationKey[] = "authorization";

// What the client sent under `key`; empty when it sent nothing or (as what is meant is open) twice.
std::string_view Metadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto [first, last] = context.client_metadata().equal_range(key);
  if (first == last || std::next(first) != last) return "";
  return {first->second.data(), first->second.size()};
}

// Of "ipv4:10.0.0.7:51234", "ipv6:%5B::1%5D:51234" or "unix:": all but the port, which a client has
// another of with each connection.
std::string Address(const std::string& peer) {
  return peer.substr(0, absl::StartsWith(peer, "ip") ? peer.rfind(':') : peer.npos);
}

// The token's name, or the client's address.
std::string ClientName(const absl::StatusOr<Principal>& principal, const std::string& peer) {
  return principal.ok() && !principal->name.empty() ? principal->name : Address(peer);
}

// The token's name, or that in the client's certificate, or where nobody has to say who he is what
// the client calls itself, or its address.
std::string ClientName(const absl::StatusOr<Principal>& principal,
                       const grpc::CallbackServerContext& context) {
  if (principal.ok() && !principal->name.empty()) return principal->name;
  const auto names = context.auth_context()->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  if (!names.empty()) return std::string(names.front().data(), names.front().size());
  const std::string_view given = Metadata(context, kClientIdKey);
  constexpr std::size_t kLongest = 128;
  if (!given.empty() && given.size() <= kLongest &&
      std::all_of(given.begin(), given.end(), absl::ascii_isgraph)) {
    return std::string(given);
  }
  return Address(context.peer());
}

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

// The server's own faults are errors of the log; what clients ask wrongly is not, but who is kept
// out may be worth a look.
Logger::Level LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return Logger::Level::kError;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return Logger::Level::kWarning;
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

absl::Status CallMonitor::Begin(Call* call, const absl::Status& access) {
  absl::MutexLock lock(&mutex_);
  calls_.insert(call);
  if (!access.ok()) return access;
  return admitting_ ? absl::OkStatus() : absl::UnavailableError("the server is shutting down");
}

void CallMonitor::End(Call* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

Call::Call(CallMonitor* monitor, grpc::CallbackServerContext* context, MethodName method)
    : monitor_(monitor),
      method_(method),
      peer_(context->peer()),
      ids_(MakeRequestIds(Metadata(*context, kRequestIdKey), Metadata(*context, kTraceparentKey))),
      principal_(monitor->access_->Admit(Metadata(*context, kAuthorizationKey), method.full())),
      cancel_(std::make_shared<CancelToken>(Deadline(*context), ClientName(principal_, *context))),
      admission_(monitor->Begin(this, principal_.status())) {
  context->AddInitialMetadata(kRequestIdKey, ids_.request_id);
  context->AddTrailingMetadata(kRequestIdKey, ids_.request_id);
  context->AddTrailingMetadata(kTraceparentKey, ids_.traceparent);
}

Call::Call(CallMonitor* monitor, const CallOrigin& origin, MethodName method)
    : monitor_(monitor),
      method_(method),
      peer_(origin.peer),
      ids_(MakeRequestIds(origin.request_id, origin.traceparent)),
      principal_(monitor->access_->Admit(origin.authorization, method.full())),
      cancel_(std::make_shared<CancelToken>(absl::InfiniteFuture(), ClientName(principal_, peer_))),
      admission_(monitor->Begin(this, principal_.status())) {}

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

void Call::Log(Logger::Level level, std::string_view message, LogFields fields) const {
  fields.insert(fields.end(), {{"request_id", ids_.request_id},
                               {"trace_id", std::string(ids_.trace_id())},
                               {"client", cancel_->client()},
                               {"peer", peer_}});
  monitor_->logger_->Log(level, message, fields);
}

grpc::Status Call::Answer(const absl::Status& status) {
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  const std::string code = CodeName(status);
  monitor_->metrics_->RequestDone(method_.brief(), code, seconds);
  LogFields fields = {
      {"method", std::string(method_.brief())}, {"code", code}, {"seconds", seconds}};
  // What is wrong with an argument may quote it, and prompts are arguments.
  if (!status.ok() && !absl::IsInvalidArgument(status))
    fields.emplace_back("error", std::string(status.message()));
  Log(LevelOf(status.code()), "request", std::move(fields));
  return ToGrpcStatus(status);
}

void Call::End() { monitor_->End(this); }

}  // namespace distorch
