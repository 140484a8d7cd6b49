// A request and its answer over HTTP, whatever library carries them.
#ifndef SERVER_HTTP_HTTP_TYPES_H_
#define SERVER_HTTP_HTTP_TYPES_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace distorch {

// Of multipart/form-data.
struct HttpFormPart {
  std::string name;
  std::string data;
};

struct HttpRequest {
  std::string method;  // "GET" for HEAD, too, whose answer loses its body on the way
  std::string path;    // percent-decoded, without the query
  std::map<std::string, std::string> query;
  // Names in lower case; what came several times is joined by ", ".
  std::map<std::string, std::string> headers;
  std::string body;                // when the route's body is kRaw
  std::vector<HttpFormPart> form;  // when it is kForm
  std::string peer;                // "ipv4:127.0.0.1:40000", as gRPC writes it
  // Whether the client has gone away or the server is stopping: whoever computes for it looks from
  // time to time. Valid while the request is handled and its answer streamed.
  std::function<bool()> gone;

  // Empty when there is none. `name` in lower case.
  std::string_view header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // When set, the body is what it appends, call by call, until it returns false. May block, and
  // should look at HttpRequest::gone then. Destroyed when the answer was sent or the client left.
  std::function<bool(std::string*)> stream;
  // Let go when the answer was sent or the client left.
  std::shared_ptr<void> keep;
};

// What is answered at one path, or at all below one. Thread-safe functions.
struct HttpRoute {
  enum class Body { kNone, kRaw, kForm };

  std::string method;  // "GET" or "POST"
  std::string path;    // the whole of it; if it ends in "/*", anything may stand for the '*'
  std::function<HttpResponse(const HttpRequest&)> handle;
  Body body = Body::kNone;
  std::size_t max_body = 0;
  // Asked before the body is read: an answer is sent instead, and the body never read. May be
  // empty.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> refuse;
};

}  // namespace distorch

#endif  // SERVER_HTTP_HTTP_TYPES_H_
