// Health, drain, signals and the port file.
#include "server/server.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/http_get.h"
#include "tests/server/server_fixture.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(60);

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "";
  std::string text;
  for (const grpc::Slice& slice : slices)
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

// A call of grpc.health.v1.Health by its bytes: its messages have one field each. Watch streams,
// Check answers once.
class HealthCall {
 public:
  HealthCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
             const std::string& service)
      : stub_(channel),
        call_(stub_.PrepareCall(&context_, "/grpc.health.v1.Health/" + method, &queue_)) {
    call_->StartCall(this);
    Wait();
    grpc::Slice slice(std::string("\x0a") + static_cast<char>(service.size()) + service);
    call_->Write(grpc::ByteBuffer(&slice, 1), this);
    Wait();
    call_->WritesDone(this);
    Wait();
  }
  ~HealthCall() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // "SERVING", "NOT_SERVING", or "" when the stream is over.
  std::string Next() {
    grpc::ByteBuffer response;
    call_->Read(&response, this);
    if (!Wait()) return "";
    const std::string bytes = Text(response);
    return bytes == "\x08\x01" ? "SERVING" : bytes == "\x08\x02" ? "NOT_SERVING" : "other";
  }

 private:
  bool Wait() {
    void* tag;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

class ServerTest : public ServerFixture {
 protected:
  // A call that runs until `release_` or its cancellation.
  void SetUp() override {
    core.denoise = [this](const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) {
      core.Spawn([this, x = spec.x, cancel, done = std::move(done)]() mutable {
        started_.Notify();
        while (!release_.HasBeenNotified() && cancel->Check().ok()) std::this_thread::yield();
        if (release_.HasBeenNotified()) return std::move(done)(std::move(x));
        std::move(done)(cancel->Check());
      });
    };
  }

  grpc::Status CallDenoise() {
    v1::DenoiseRequest request;
    request.set_model("m");
    for (v1::Tensor* tensor :
         {request.mutable_x(), request.mutable_conditioning()->mutable_cross_attention()}) {
      tensor->set_dtype(v1::FLOAT32);
      tensor->add_shape(1);
      tensor->set_data(std::string(4, '\0'));
    }
    request.add_sigma(1);
    grpc::ClientContext context;
    v1::DenoiseResponse response;
    return inference->Denoise(&context, request, &response);
  }

  absl::Notification started_, release_;
};

TEST_F(ServerTest, HealthKnowsEveryService) {
  StartServer();
  for (const char* service : {"", "distorch.v1.ModelService", "distorch.v1.InferenceService"}) {
    EXPECT_EQ(HealthCall(channel, "Check", service).Next(), "SERVING") << service;
  }
  EXPECT_EQ(HealthCall(channel, "Check", "no.such.Service").Next(), "");
}

TEST_F(ServerTest, DrainLetsRunningCallsFinishAndRefusesNewOnes) {
  Options options;
  options.metrics_address = "127.0.0.1:0";
  StartServer(options);
  EXPECT_THAT(HttpGet(server->metrics_port(), "/readyz"), HasSubstr("200 OK"));
  grpc::Status running;
  std::thread client([&] { running = CallDenoise(); });
  started_.WaitForNotification();
  HealthCall watch(channel, "Watch", "");
  EXPECT_EQ(watch.Next(), "SERVING");
  std::thread drain([&] { server->Drain(kLong); });
  EXPECT_EQ(watch.Next(), "NOT_SERVING");
  grpc::Status refused;
  do {  // health is told first
    grpc::ClientContext context;
    v1::ListDevicesResponse response;
    refused = models->ListDevices(&context, {}, &response);
  } while (refused.ok());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.error_message(), HasSubstr("shutting down"));
  grpc::ClientContext context;
  EXPECT_EQ(models->LoadCheckpointStream(&context, {})->Finish().error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(HttpGet(server->metrics_port(), "/readyz"),
              AllOf(HasSubstr("503 Service Unavailable"), HasSubstr("draining")));
  EXPECT_THAT(HttpGet(server->metrics_port(), "/healthz"), HasSubstr("200 OK"));
  release_.Notify();
  client.join();
  drain.join();
  EXPECT_TRUE(running.ok()) << running.error_message();
}

TEST_F(ServerTest, DrainCancelsWhatOutlastsItsPatience) {
  StartServer();
  grpc::Status running;
  std::thread client([&] { running = CallDenoise(); });
  started_.WaitForNotification();
  server->Drain(absl::ZeroDuration());
  client.join();
  EXPECT_EQ(running.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(running.error_message(), HasSubstr("shutting down"));
}

TEST_F(ServerTest, AnOpenHealthWatchDoesNotHoldTheDrainUp) {
  StartServer();
  HealthCall watch(channel, "Watch", "");
  EXPECT_EQ(watch.Next(), "SERVING");
  const absl::Time start = absl::Now();
  server->Drain(kLong);
  EXPECT_LT(absl::Now() - start, kLong / 2);
}

TEST_F(ServerTest, APortInUseIsAnError) {
  StartServer();
  Options options;
  options.listen_address = absl::StrCat("127.0.0.1:", server->port());
  options.metrics_address = "";
  const absl::StatusOr<std::unique_ptr<Server>> second =
      Server::Start(options, &core, access.get(), &metrics, &logger);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("cannot listen on 127.0.0.1:"));
}

TEST_F(ServerTest, AMetricsPortInUseIsAnErrorToo) {
  Options options;
  options.metrics_address = "127.0.0.1:0";
  StartServer(options);
  options.listen_address = "127.0.0.1:0";
  options.metrics_address = absl::StrCat("127.0.0.1:", server->metrics_port());
  Metrics other({"", "", ""});
  const absl::Status status = Server::Start(options, &core, access.get(), &other, &logger).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot serve HTTP on 127.0.0.1:"));
}

TEST_F(ServerTest, ServesFromStartToSignal) {
  BlockSignals();  // in this thread, from which the others come
  Options options;
  options.listen_address = "127.0.0.1:0";
  options.metrics_address = "";
  options.port_file = absl::StrCat(::testing::TempDir(), "/distorchd-ports-", getpid(), ".json");
  absl::Status result;
  std::thread serving([&] { result = Serve(options, &core, access.get(), &metrics, &logger); });
  while (!std::filesystem::exists(options.port_file)) std::this_thread::yield();
  nlohmann::json ports = nlohmann::json::parse(std::ifstream(options.port_file));
  EXPECT_TRUE(ports["metrics"].is_null());
  auto stub = v1::ModelService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", ports["grpc"].get<int>()), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::ListDevicesResponse response;
  EXPECT_TRUE(stub->ListDevices(&context, {}, &response).ok());
  kill(getpid(), SIGTERM);
  serving.join();
  EXPECT_TRUE(result.ok()) << result;
  EXPECT_FALSE(std::filesystem::exists(options.port_file));
  for (const char* line : {"\"msg\":\"serving\"", "\"signal\":\"TERM\"", "\"msg\":\"stopped\""}) {
    EXPECT_THAT(log.str(), HasSubstr(line));
  }
}

}  // namespace
}  // namespace distorch
