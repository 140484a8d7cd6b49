// The server with the clients one would not wish for.
#include "server/http/http_server.h"

#include <string>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/http/raw_client.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kForm = "Content-Type: multipart/form-data; boundary=xyz\r\n";

HttpResponse Text(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(HttpLimits limits) {
    HttpServerOptions options;
    options.host = "127.0.0.1";
    options.limits = limits;
    options.routes = {
        {"GET", "/echo",
         [](const HttpRequest& r) {
           return Text(absl::StrCat(r.method, " ", r.path, " ",
                                    absl::StrJoin(r.query, "&", absl::PairFormatter("=")),
                                    " x=", r.header("x-test")));
         }},
        {"GET", "/below/*", [](const HttpRequest& r) { return Text("below " + r.path); }},
        {"POST", "/raw", [](const HttpRequest& r) { return Text("got " + r.body); },
         HttpRoute::Body::kRaw, 100},
        {"POST", "/form",
         [](const HttpRequest& r) {
           return Text(absl::StrJoin(r.form, ";", [](std::string* out, const HttpFormPart& part) {
             absl::StrAppend(out, part.name, "=", part.data);
           }));
         },
         HttpRoute::Body::kForm, 10'000},
        {"POST", "/refused", [](const HttpRequest&) { return Text("not reached"); },
         HttpRoute::Body::kRaw, 100,
         [](const HttpRequest&) {
           HttpResponse response = Text("no");
           response.status = 403;
           return response;
         }},
        {"GET", "/stream",
         [](const HttpRequest&) {
           HttpResponse response;
           response.stream = [n = 0](std::string* out) mutable {
             absl::StrAppend(out, "part ", ++n, "\n");
             return n < 3;
           };
           return response;
         }},
        {"GET", "/wait",
         [this](const HttpRequest& r) {
           waiting_.Notify();
           while (!r.gone()) std::this_thread::yield();
           gone_.Notify();
           return Text("late");
         }},
    };
    absl::StatusOr<std::unique_ptr<HttpServer>> started = HttpServer::Start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    port_ = server_->port();
  }

  static std::string FormBody(std::string_view parts) { return absl::StrCat(parts, "--xyz--\r\n"); }
  static std::string Part(std::string_view name, std::string_view data) {
    return absl::StrCat("--xyz\r\nContent-Disposition: form-data; name=\"", name,
                        "\"; filename=\"f\"\r\n\r\n", data, "\r\n");
  }

  absl::Notification waiting_, gone_;
  std::unique_ptr<HttpServer> server_;
  int port_ = 0;
};

TEST_F(HttpServerTest, GivesTheHandlerWhatTheClientSent) {
  EXPECT_THAT(Exchange(port_, "GET", "/echo?a=1%202&b", "X-Test: 7\r\nx-test: 8\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 OK"), HasSubstr("X-Content-Type-Options: nosniff"),
                    EndsWith("GET /echo a=1 2&b= x=7, 8")));
  EXPECT_THAT(Exchange(port_, "HEAD", "/echo"), EndsWith("\r\n\r\n"));
  EXPECT_THAT(Exchange(port_, "POST", "/raw", "", "body"), EndsWith("\r\n\r\ngot body"));
}

TEST_F(HttpServerTest, KeepsAConnectionForFurtherRequests) {
  RawClient client(port_);
  client.Send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\nPOST /raw HTTP/1.1\r\nHost: a\r\n")
      .Send(
          "Content-Length: 2\r\n\r\nhiGET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), AllOf(HasSubstr("GET /echo  x=HTTP/1.1 200 OK"),
                                      HasSubstr("got hi"), EndsWith("GET /echo  x=")));
}

TEST_F(HttpServerTest, ServesAllBelowAPath) {
  EXPECT_THAT(Exchange(port_, "GET", "/below/a/b%20c?d"), EndsWith("\r\n\r\nbelow /below/a/b c"));
  for (const char* path : {"/below", "/below/", "/belows/a"})
    EXPECT_THAT(Exchange(port_, "GET", path), StartsWith("HTTP/1.1 404 ")) << path;
  EXPECT_THAT(Exchange(port_, "POST", "/below/a"), StartsWith("HTTP/1.1 405 "));
}

TEST_F(HttpServerTest, OnlyServesItsPaths) {
  for (const char* path : {"/", "/echo/", "//echo", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
                           "/echo/../../etc/passwd", "/ECHO", "http://evil/echo", "*"}) {
    EXPECT_THAT(Exchange(port_, "GET", path), StartsWith("HTTP/1.1 404 ")) << path;
  }
  EXPECT_THAT(Exchange(port_, "DELETE", "/raw"),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: POST\r\n"),
                    HasSubstr("this path takes POST, not DELETE")));
}

TEST_F(HttpServerTest, RefusesWithoutReadingTheBody) {
  RawClient client(port_);
  client.Send("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 403 "));
}

TEST_F(HttpServerTest, BoundsTheBody) {
  RawClient announced(port_);
  announced.Send("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_THAT(announced.ReadAll(),
              AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("more than 100 bytes")));
  RawClient chunked(port_);
  chunked.Send("POST /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n")
      .Send("Transfer-Encoding: chunked\r\n\r\n40\r\n" + std::string(64, 'x'))
      .Send("\r\n40\r\n" + std::string(64, 'x') + "\r\n0\r\n\r\n");
  EXPECT_THAT(chunked.ReadAll(), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange(port_, "GET", "/echo", "", "body"), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, BoundsTheHead) {
  const std::string much(100'000, 'a');
  EXPECT_THAT(Exchange(port_, "GET", "/" + much), testing::Not(HasSubstr(" 200 ")));
  EXPECT_THAT(Exchange(port_, "GET", "/echo", "X-Test: " + much + "\r\n"),
              testing::Not(HasSubstr(" 200 ")));
  EXPECT_THAT(Exchange(port_, "GET", "/echo"), HasSubstr(" 200 ")) << "others are still served";
}

TEST_F(HttpServerTest, ReadsForms) {
  const std::string data = "line\r\n--xy\r\n\0binary" + std::string(5000, 'z');
  EXPECT_THAT(Exchange(port_, "POST", "/form", kForm,
                       FormBody(Part("a", data) + Part("empty", "") + Part("a", "2"))),
              EndsWith(absl::StrCat("\r\n\r\na=", data, ";empty=;a=2")));
}

TEST_F(HttpServerTest, RefusesMalformedForms) {
  std::string many;
  for (int i = 0; i < 65; ++i) many += Part(absl::StrCat("p", i), "v");
  EXPECT_THAT(Exchange(port_, "POST", "/form", kForm, FormBody(many)),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("at most 64 parts")));
  for (std::string_view body : {"nonsense", "--xyz\r\nContent-Disposition: form-data\r\n\r\nx"}) {
    EXPECT_THAT(Exchange(port_, "POST", "/form", kForm, body), StartsWith("HTTP/1.1 400 ")) << body;
  }
  EXPECT_THAT(Exchange(port_, "POST", "/form", "Content-Type: multipart/form-data\r\n", "--x"),
              StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Exchange(port_, "POST", "/form", "Content-Type: text/plain\r\n", "x"),
              StartsWith("HTTP/1.1 415 "));
}

TEST_F(HttpServerTest, StreamsPartByPart) {
  EXPECT_THAT(Exchange(port_, "GET", "/stream"),
              AllOf(HasSubstr("Transfer-Encoding: chunked"), HasSubstr("part 1\n"),
                    HasSubstr("part 3\n"), EndsWith("0\r\n\r\n")));
}

TEST_F(HttpServerTest, TellsTheHandlerThatTheClientLeft) {
  {
    RawClient client(port_);
    client.Send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    waiting_.WaitForNotification();
    EXPECT_FALSE(gone_.HasBeenNotified());
  }
  gone_.WaitForNotification();
}

TEST_F(HttpServerTest, StopsWhileHandlersWait) {
  RawClient client(port_);
  client.Send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  waiting_.WaitForNotification();
  server_.reset();
  EXPECT_TRUE(gone_.HasBeenNotified());
  EXPECT_FALSE(RawClient(port_).connected());
}

TEST_F(HttpServerTest, CutsOffSlowClients) {
  Start({.head_time = absl::Milliseconds(10), .body_time = absl::Milliseconds(10)});
  RawClient silent(port_);
  EXPECT_EQ(silent.ReadAll(), "");
  RawClient half_head(port_);
  EXPECT_EQ(half_head.Send("GET /echo HTTP/1.1\r\nHo").ReadAll(), "");
  Start({.body_time = absl::Milliseconds(10)});
  RawClient half_body(port_);
  half_body.Send("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(half_body.ReadAll(), "");
}

TEST_F(HttpServerTest, BoundsConnections) {
  Start({.connections = 2});
  RawClient one(port_), two(port_);
  one.Send("GET /");
  two.Send("GET /");
  RawClient three(port_);
  EXPECT_EQ(three.Send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").ReadAll(), "");
}

TEST(HttpServerStart, AnAddressThatIsTakenOrForeignIsAnError) {
  HttpServerOptions options;
  options.host = "127.0.0.1";
  auto first = HttpServer::Start(options);
  ASSERT_TRUE(first.ok()) << first.status();
  options.port = (*first)->port();
  const absl::Status taken = HttpServer::Start(options).status();
  EXPECT_TRUE(absl::IsUnavailable(taken)) << taken;
  EXPECT_THAT(std::string(taken.message()), HasSubstr(absl::StrCat("127.0.0.1:", options.port)));
  options.host = "192.0.2.1";
  EXPECT_TRUE(absl::IsUnavailable(HttpServer::Start(options).status()));
}

}  // namespace
}  // namespace distorch
