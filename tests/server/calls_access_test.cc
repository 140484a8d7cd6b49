// Tokens and the ids of requests, through a real client and server on loopback.
#include <grpcpp/client_context.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "tests/server/requests.h"
#include "tests/server/server_fixture.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kTraceparent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

class CallsAccessTest : public ServerFixture {
 protected:
  void SetUp() override {
    core.denoise = [this](const DenoiseSpec& spec, CancelTokenPtr cancel, Done<HostTensor> done) {
      client_ = cancel->client();
      std::move(done)(spec.x);
    };
  }

  void StartWithTokens() {
    const std::string path = absl::StrCat(::testing::TempDir(), "/calls_access_tokens.yaml");
    std::ofstream(path) << "tokens:\n"
                           "  - {name: vera, role: viewer, token: viewer-secret}\n"
                           "  - {name: ulf, role: user, token: user-secret}\n";
    access = *Access::Create(path, &logger);
    std::filesystem::remove(path);
    StartServer();
  }

  grpc::Status Denoise(grpc::ClientContext* context) {
    v1::DenoiseResponse response;
    return inference->Denoise(context, DenoiseRequest(), &response);
  }
  grpc::Status DenoiseAs(const std::string& authorization) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    return Denoise(&context);
  }

  static std::string Trailer(const grpc::ClientContext& context, const std::string& key) {
    auto it = context.GetServerTrailingMetadata().find(key);
    return it == context.GetServerTrailingMetadata().end()
               ? ""
               : std::string(it->second.data(), it->second.size());
  }

  std::string client_;  // who asked for the last Denoise that reached the core
};

TEST_F(CallsAccessTest, ATokenOpensWhatItsRoleMayDo) {
  StartWithTokens();
  EXPECT_TRUE(DenoiseAs("Bearer user-secret").ok());
  EXPECT_EQ(client_, "ulf");
  client_.clear();
  EXPECT_EQ(DenoiseAs("").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(DenoiseAs("Bearer wrong-secret").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const grpc::Status denied = DenoiseAs("Bearer viewer-secret");
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(denied.error_message(),
            "/distorch.v1.InferenceService/Denoise needs the role user; vera has the role viewer");
  grpc::ClientContext twice;
  twice.AddMetadata("authorization", "Bearer user-secret");
  twice.AddMetadata("authorization", "Bearer viewer-secret");
  EXPECT_EQ(Denoise(&twice).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(client_, "");  // none of these reached the core
  server.reset();
  EXPECT_THAT(log.str(), HasSubstr("\"client\":\"ulf\""));
  EXPECT_THAT(log.str(), Not(HasSubstr("secret")));
}

TEST_F(CallsAccessTest, RefusedStreamsEndAtOnce) {
  StartWithTokens();
  grpc::ClientContext infer, load;
  EXPECT_EQ(inference->Infer(&infer, InferRequest())->Finish().error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  load.AddMetadata("authorization", "Bearer user-secret");
  EXPECT_EQ(models->LoadCheckpointStream(&load, LoadRequest())->Finish().error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(CallsAccessTest, WithoutTokensTheClientIsItsAddress) {
  StartServer();
  EXPECT_TRUE(DenoiseAs("Bearer whatever").ok());
  EXPECT_EQ(client_, "ipv4:127.0.0.1");
}

TEST_F(CallsAccessTest, RequestIdsComeBackAndAreInTheLog) {
  StartServer();
  grpc::ClientContext both, trace, none;
  both.AddMetadata("x-request-id", "job-17");
  both.AddMetadata("traceparent", kTraceparent);
  trace.AddMetadata("traceparent", kTraceparent);
  none.AddMetadata("traceparent", "00-nonsense");
  for (grpc::ClientContext* context : {&both, &trace, &none}) ASSERT_TRUE(Denoise(context).ok());
  EXPECT_EQ(Trailer(both, "x-request-id"), "job-17");
  EXPECT_EQ(both.GetServerInitialMetadata().count("x-request-id"), 1u);
  EXPECT_EQ(Trailer(both, "traceparent"), kTraceparent);
  EXPECT_EQ(Trailer(trace, "x-request-id"), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(Trailer(none, "traceparent").substr(3, 32), Trailer(none, "x-request-id"));
  server.reset();
  EXPECT_THAT(log.str(), HasSubstr("\"request_id\":\"job-17\","
                                   "\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\""));
  EXPECT_THAT(log.str(), HasSubstr(Trailer(none, "x-request-id")));
}

TEST_F(CallsAccessTest, EveryLineOfALoadHasItsId) {
  core.load = [](const LoadSpec&, CancelTokenPtr, auto, Done<LoadResult> done) {
    std::move(done)(LoadResult());
  };
  StartServer();
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "load-3");
  v1::LoadCheckpointResponse response;
  ASSERT_TRUE(models->LoadCheckpoint(&context, LoadRequest(), &response).ok());
  server.reset();
  for (const char* message : {"\"msg\":\"loaded\"", "\"msg\":\"request\""}) {
    const std::size_t at = log.str().find(message);
    ASSERT_NE(at, std::string::npos);
    EXPECT_THAT(log.str().substr(at, log.str().find('\n', at) - at), HasSubstr("load-3"));
  }
}

}  // namespace
}  // namespace distorch
