#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "server/http/connection_watch.h"
#include "server/http/listen_socket.h"

namespace distorch {
namespace {

constexpr std::size_t kSendBlock = 64 << 10;
constexpr std::size_t kFormBuffer = 64 << 10;

int SocketOf(MHD_Connection* connection) {
  return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

std::string PeerOf(MHD_Connection* connection) {
  const sockaddr* address =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
  char host[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
    return absl::StrCat("ipv6:[", host, "]:", ntohs(v6->sin6_port));
  }
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
  inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
  return absl::StrCat("ipv4:", host, ":", ntohs(v4->sin_port));
}

bool HungUp(int socket) {
  pollfd poll_it = {socket, POLLRDHUP, 0};
  return poll(&poll_it, 1, 0) > 0;
}

MHD_Result AddHeader(void* out, MHD_ValueKind, const char* name, const char* value) {
  auto* headers = static_cast<std::map<std::string, std::string>*>(out);
  const std::string_view text = value == nullptr ? "" : value;
  auto [it, is_new] = headers->emplace(absl::AsciiStrToLower(name), text);
  if (!is_new) absl::StrAppend(&it->second, ", ", text);
  return MHD_YES;
}

MHD_Result AddArgument(void* out, MHD_ValueKind, const char* name, const char* value) {
  static_cast<std::map<std::string, std::string>*>(out)->emplace(name,
                                                                 value == nullptr ? "" : value);
  return MHD_YES;
}

// Whether the route is that of `path`, which is not empty behind a "/*".
bool Matches(const HttpRoute& route, std::string_view path) {
  std::string_view start = route.path;
  if (!absl::EndsWith(start, "/*")) return start == path;
  start.remove_suffix(1);
  return path.size() > start.size() && absl::StartsWith(path, start);
}

HttpResponse PlainError(std::string_view, int status, std::string_view message) {
  HttpResponse response;
  response.status = status;
  response.body = absl::StrCat(message, "\n");
  return response;
}

// One request while it is read and answered.
struct Exchange {
  ~Exchange() {
    if (form_reader != nullptr) MHD_destroy_post_processor(form_reader);
  }

  HttpRequest request;
  const HttpRoute* route = nullptr;
  MHD_PostProcessor* form_reader = nullptr;
  int form_parts = 0;  // the most there may be
  std::size_t received = 0;
  bool malformed = false;
};

MHD_Result AddFormData(void* to, MHD_ValueKind, const char* name, const char*, const char*,
                       const char*, const char* data, uint64_t offset, std::size_t size) {
  auto* exchange = static_cast<Exchange*>(to);
  std::vector<HttpFormPart>& form = exchange->request.form;
  // An empty first piece may be followed by another first one.
  const bool continued =
      !form.empty() &&
      (offset > 0 || (form.back().data.empty() && name != nullptr && form.back().name == name));
  if (!continued) {
    if (name == nullptr || static_cast<int>(form.size()) >= exchange->form_parts) {
      exchange->malformed = true;
      return MHD_NO;
    }
    form.push_back({name, ""});
  }
  form.back().data.append(data, size);
  return MHD_YES;
}

// An answer on its way. Made when the handler is done, destroyed when it was sent.
struct Sending {
  ConnectionWatch* watch;
  int socket;
  absl::Duration send_time;
  std::string data;
  std::size_t sent = 0;
  std::function<bool(std::string*)> stream;  // empty: `data` is all
  std::shared_ptr<void> keep;
};

ssize_t SendMore(void* from, uint64_t, char* buffer, std::size_t size) {
  auto* sending = static_cast<Sending*>(from);
  while (sending->sent == sending->data.size()) {
    if (!sending->stream) return MHD_CONTENT_READER_END_OF_STREAM;
    sending->data.clear();
    sending->sent = 0;
    sending->watch->Forget(sending->socket);  // now it is the client that waits
    if (!sending->stream(&sending->data)) sending->stream = nullptr;
  }
  const std::size_t part = std::min(size, sending->data.size() - sending->sent);
  sending->data.copy(buffer, part, sending->sent);
  sending->sent += part;
  sending->watch->Expect(sending->socket, sending->send_time);
  return static_cast<ssize_t>(part);
}

void EndSending(void* sending) { delete static_cast<Sending*>(sending); }

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(HttpServerOptions options) : options_(std::move(options)) {
    if (!options_.error) options_.error = PlainError;
  }
  ~Impl() {
    if (daemon_ != nullptr) MHD_stop_daemon(daemon_);  // closes the socket
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  absl::Status Start() {
    ASSIGN_OR_RETURN(const ListenSocket socket, Listen(options_.host, options_.port));
    daemon_ = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, nullptr, nullptr,
        &Impl::OnAccess, this, MHD_OPTION_LISTEN_SOCKET, socket.fd, MHD_OPTION_CONNECTION_LIMIT,
        static_cast<unsigned>(options_.limits.connections), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        options_.limits.head, MHD_OPTION_NOTIFY_COMPLETED, &Impl::OnCompleted, this,
        MHD_OPTION_NOTIFY_CONNECTION, &Impl::OnConnection, this, MHD_OPTION_END);
    if (daemon_ == nullptr) {
      close(socket.fd);
      return absl::UnavailableError("cannot serve HTTP: no memory or threads for it");
    }
    port_ = socket.port;
    return absl::OkStatus();
  }

  int port() const { return port_; }

 private:
  static void OnConnection(void* self, MHD_Connection* connection, void**,
                           MHD_ConnectionNotificationCode code) {
    auto* impl = static_cast<Impl*>(self);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
      impl->watch_.Expect(SocketOf(connection), impl->options_.limits.head_time);
    } else {
      impl->watch_.Forget(SocketOf(connection));
    }
  }

  static void OnCompleted(void* self, MHD_Connection* connection, void** state,
                          MHD_RequestTerminationCode) {
    auto* impl = static_cast<Impl*>(self);
    delete static_cast<Exchange*>(*state);
    *state = nullptr;
    impl->watch_.Expect(SocketOf(connection), impl->options_.limits.head_time);
  }

  // Called when the headers are there, then with parts of the body, then when all is there.
  static MHD_Result OnAccess(void* self, MHD_Connection* connection, const char* url,
                             const char* method, const char*, const char* data, std::size_t* size,
                             void** state) {
    auto* impl = static_cast<Impl*>(self);
    if (*state == nullptr) {
      auto* exchange = new Exchange;
      *state = exchange;
      return impl->Begin(connection, url, method, exchange);
    }
    auto* exchange = static_cast<Exchange*>(*state);
    if (*size > 0) {
      impl->Receive({data, *size}, exchange);
      *size = 0;
      return MHD_YES;
    }
    return impl->Answer(connection, exchange);
  }

  MHD_Result Begin(MHD_Connection* connection, const char* url, const char* method,
                   Exchange* exchange) {
    watch_.Expect(SocketOf(connection), options_.limits.body_time);
    HttpRequest& request = exchange->request;
    request.method = method == std::string_view("HEAD") ? "GET" : method;
    request.path = url;
    request.peer = PeerOf(connection);
    request.gone = [socket = SocketOf(connection)] { return HungUp(socket); };
    MHD_get_connection_values(connection, MHD_HEADER_KIND, AddHeader, &request.headers);
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, AddArgument, &request.query);
    std::optional<HttpResponse> refusal = Refusal(exchange);
    if (refusal.has_value()) return Send(connection, *std::move(refusal));
    if (exchange->route->body == HttpRoute::Body::kForm) {
      exchange->form_parts = options_.limits.form_parts;
      exchange->form_reader =
          MHD_create_post_processor(connection, kFormBuffer, AddFormData, exchange);
      exchange->malformed = exchange->form_reader == nullptr;  // no boundary
    }
    return MHD_YES;
  }

  // Why the request is not read any further.
  std::optional<HttpResponse> Refusal(Exchange* exchange) const {
    const HttpRequest& request = exchange->request;
    std::string allowed;
    for (const HttpRoute& route : options_.routes) {
      if (!Matches(route, request.path)) continue;
      if (route.method == request.method) exchange->route = &route;
      absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", route.method);
    }
    if (allowed.empty()) return Error(request, 404, "nothing is served at this path");
    if (exchange->route == nullptr) {
      HttpResponse response =
          Error(request, 405, absl::StrCat("this path takes ", allowed, ", not ", request.method));
      response.headers.emplace_back("Allow", allowed);
      return response;
    }
    const HttpRoute& route = *exchange->route;
    if (route.refuse) {
      std::optional<HttpResponse> refusal = route.refuse(request);
      if (refusal.has_value()) return refusal;
    }
    uint64_t length = 0;
    if (absl::SimpleAtoi(request.header("content-length"), &length) && length > route.max_body) {
      return TooLarge(request, route);
    }
    if (route.body == HttpRoute::Body::kForm &&
        !absl::StartsWithIgnoreCase(request.header("content-type"), "multipart/form-data")) {
      return Error(request, 415, "the body must be multipart/form-data");
    }
    return std::nullopt;
  }

  void Receive(std::string_view data, Exchange* exchange) const {
    exchange->received += data.size();
    // The rest is read and dropped: an answer can only follow the whole request.
    if (exchange->received > exchange->route->max_body || exchange->malformed) return;
    if (exchange->form_reader == nullptr) {
      exchange->request.body.append(data);
    } else if (MHD_post_process(exchange->form_reader, data.data(), data.size()) != MHD_YES) {
      exchange->malformed = true;
    }
  }

  MHD_Result Answer(MHD_Connection* connection, Exchange* exchange) {
    watch_.Forget(SocketOf(connection));
    const HttpRequest& request = exchange->request;
    if (exchange->received > exchange->route->max_body) {
      return Send(connection, TooLarge(request, *exchange->route));
    }
    if (exchange->form_reader != nullptr) {
      const bool whole = MHD_destroy_post_processor(exchange->form_reader) == MHD_YES;
      exchange->form_reader = nullptr;
      exchange->malformed |= !whole;
    }
    exchange->malformed |= exchange->route->body == HttpRoute::Body::kForm && request.form.empty();
    if (exchange->malformed) {
      return Send(connection,
                  Error(request, 400,
                        absl::StrCat("the body is not well-formed multipart/form-data of at most ",
                                     options_.limits.form_parts, " parts")));
    }
    return Send(connection, exchange->route->handle(request));
  }

  HttpResponse Error(const HttpRequest& request, int status, std::string_view message) const {
    return options_.error(request.path, status, message);
  }
  HttpResponse TooLarge(const HttpRequest& request, const HttpRoute& route) const {
    return Error(request, 413,
                 route.max_body == 0
                     ? "this path takes no body"
                     : absl::StrCat("the body has more than ", route.max_body, " bytes"));
  }

  MHD_Result Send(MHD_Connection* connection, HttpResponse answer) {
    const bool streamed = static_cast<bool>(answer.stream);
    const uint64_t size = streamed ? MHD_SIZE_UNKNOWN : answer.body.size();
    const int socket = SocketOf(connection);
    auto sending = std::make_unique<Sending>(
        Sending{&watch_, socket, options_.limits.send_time, std::move(answer.body), 0,
                std::move(answer.stream), std::move(answer.keep)});
    const std::unique_ptr<MHD_Response, decltype(&MHD_destroy_response)> response(
        MHD_create_response_from_callback(size, kSendBlock, SendMore, sending.get(), EndSending),
        &MHD_destroy_response);
    if (response == nullptr) return MHD_NO;
    sending.release();  // the response's from now on
    watch_.Expect(socket, options_.limits.send_time);
    answer.headers.emplace_back("Content-Type", answer.content_type);
    answer.headers.emplace_back("X-Content-Type-Options", "nosniff");
    answer.headers.emplace_back("Cache-Control", "no-store");
    for (const auto& [name, value] : answer.headers) {
      MHD_add_response_header(response.get(), name.c_str(), value.c_str());
    }
    return MHD_queue_response(connection, static_cast<unsigned>(answer.status), response.get());
  }

  HttpServerOptions options_;
  ConnectionWatch watch_;
  MHD_Daemon* daemon_ = nullptr;
  int port_ = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace distorch
