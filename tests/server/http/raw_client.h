// An HTTP client that sends exactly the bytes a test says.
#ifndef TESTS_SERVER_HTTP_RAW_CLIENT_H_
#define TESTS_SERVER_HTTP_RAW_CLIENT_H_

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace distorch {

// A connection to loopback. Closed with the object.
class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  RawClient& Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return *this;
  }

  // All that comes until the server closes.
  std::string ReadAll() {
    std::string all;
    char buffer[4096];
    for (ssize_t n; (n = read(fd_, buffer, sizeof(buffer))) > 0;)
      all.append(buffer, static_cast<std::size_t>(n));
    return all;
  }

 private:
  const int fd_;
  bool connected_ = false;
};

// The whole response; the connection is not kept.
inline std::string Exchange(int port, std::string_view method, std::string_view path,
                            std::string_view headers = "", std::string_view body = "") {
  RawClient client(port);
  client.Send(absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: localhost:", port,
                           "\r\nConnection: close\r\n", headers));
  if (!body.empty()) client.Send(absl::StrCat("Content-Length: ", body.size(), "\r\n"));
  return client.Send(absl::StrCat("\r\n", body)).ReadAll();
}

}  // namespace distorch

#endif  // TESTS_SERVER_HTTP_RAW_CLIENT_H_
