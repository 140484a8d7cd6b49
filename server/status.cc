#include "server/status.h"

#include <optional>

#include "absl/time/time.h"
#include "lib/base/retry_delay.h"
#include "lib/base/utf8.h"
#include "proto/status_details.pb.h"

namespace distorch {
namespace {

// Bytes of the message as they travel: gRPC percent-encodes all but printable ASCII.
constexpr std::size_t kMaxEncodedMessage = 6000;
constexpr std::string_view kCutNote = " [cut]";

std::size_t EncodedSize(char c) { return c >= 0x20 && c <= 0x7e && c != '%' ? 1 : 3; }

std::string Cut(std::string message) {
  std::size_t encoded = 0;
  for (std::size_t i = 0; i < message.size(); ++i) {
    encoded += EncodedSize(message[i]);
    if (encoded <= kMaxEncodedMessage) continue;
    // Back to the first byte of the character that does not fit.
    while (i > 0 && (message[i] & 0xC0) == 0x80) --i;
    message.resize(i);
    message += kCutNote;
    break;
  }
  return message;
}

// google.rpc.Status with a google.rpc.RetryInfo. The message is in the status beside it: here it
// would only fill the trailers.
std::string Details(int code, absl::Duration retry) {
  details::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(retry));
  info.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(retry % absl::Seconds(1))));
  details::Status status;
  status.set_code(code);
  google::protobuf::Any* any = status.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(info.SerializeAsString());
  return status.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl maps codes it does not know to UNKNOWN; the known ones have gRPC's numbers.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = Cut(CleanUtf8(status.message()));
  const std::optional<absl::Duration> retry = RetryDelayOf(status);
  if (!retry) return grpc::Status(code, message);
  return grpc::Status(code, message, Details(code, *retry));
}

std::string CodeName(const absl::Status& status) { return absl::StatusCodeToString(status.code()); }

std::string CleanUtf8(std::string_view text) {
  std::string clean;
  while (true) {
    const std::size_t valid = Utf8PrefixLength(text);
    clean += text.substr(0, valid);
    if (valid == text.size()) return clean;
    clean += "\xEF\xBF\xBD";
    text.remove_prefix(valid + 1);
  }
}

}  // namespace distorch
