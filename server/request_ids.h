// The names under which a request is found again: in the log, and in other programs' traces.
#ifndef SERVER_REQUEST_IDS_H_
#define SERVER_REQUEST_IDS_H_

#include <string>
#include <string_view>

namespace distorch {

struct RequestIds {
  std::string request_id;   // what the client called it, or else the trace id
  std::string traceparent;  // W3C Trace Context, version 00, as the client sent it or made up

  // The 32 hex digits in `traceparent`.
  std::string_view trace_id() const { return std::string_view(traceparent).substr(3, 32); }
};

// Of what the client sent as x-request-id (1 to 128 printable ASCII characters) and as traceparent;
// what is absent (empty) or malformed is replaced. Traceparents of later versions are cut to what
// version 00 has, as the recommendation asks for.
RequestIds MakeRequestIds(std::string_view request_id, std::string_view traceparent);

}  // namespace distorch

#endif  // SERVER_REQUEST_IDS_H_
