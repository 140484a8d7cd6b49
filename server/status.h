// absl::Status as gRPC sends it. The only place where the two meet.
#ifndef SERVER_STATUS_H_
#define SERVER_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace distorch {

// The codes are the same; the message is made valid UTF-8 and cut to what HTTP/2 trailers carry
// (clients refuse more than 8 KiB of them), with a note at its end that it was. A delay after which
// to try again (lib/base/retry_delay.h) travels in the details, as google.rpc.RetryInfo.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "INVALID_ARGUMENT", for logs and metrics.
std::string CodeName(const absl::Status& status);

// `text` with every byte that is not part of valid UTF-8 replaced by U+FFFD. Protobuf strings must
// be UTF-8, file names and what is quoted from files need not be.
std::string CleanUtf8(std::string_view text);

}  // namespace distorch

#endif  // SERVER_STATUS_H_
