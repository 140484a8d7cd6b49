// A real server on loopback, port 0, around a fake core.
#ifndef TESTS_SERVER_SERVER_FIXTURE_H_
#define TESTS_SERVER_SERVER_FIXTURE_H_

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/distorch.grpc.pb.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/server.h"
#include "tests/server/fake_core.h"

namespace distorch {

class ServerFixture : public ::testing::Test {
 protected:
  // Without metrics unless `options` say otherwise.
  void StartServer(Options options = WithoutMetrics()) {
    options.listen_address = "127.0.0.1:0";
    absl::StatusOr<std::unique_ptr<Server>> started =
        Server::Start(options, &core, access.get(), &metrics, &logger);
    ASSERT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    channel = NewChannel();
    models = v1::ModelService::NewStub(channel);
    inference = v1::InferenceService::NewStub(channel);
  }

  static Options WithoutMetrics() {
    Options options;
    options.metrics_address = "";
    return options;
  }

  std::shared_ptr<grpc::Channel> NewChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    // A connection of its own, so that what one test fills does not slow another.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server->port()),
                                     grpc::InsecureChannelCredentials(), arguments);
  }

  void TearDown() override {
    server.reset();
    core.Join();
  }

  FakeCore core;
  std::ostringstream log;
  Logger logger{"info", "json", &log};
  // Lets everyone in; a test may put another in its place before it starts the server.
  std::unique_ptr<Access> access = *Access::Create("", &logger);
  Metrics metrics{{"1.2.3", "2.11.0", "13.0"}};
  std::unique_ptr<Server> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::InferenceService::Stub> inference;
};

}  // namespace distorch

#endif  // TESTS_SERVER_SERVER_FIXTURE_H_
