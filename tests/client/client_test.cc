#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "lib/base/retry_delay.h"
#include "proto/status_details.pb.h"
#include "tests/client/fake_server.h"

namespace distorch::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ClientTest : public testing::Test {
 protected:
  void SetUp() override { client_ = Connect({}); }

  std::unique_ptr<Client> Connect(const ConnectOptions& options) {
    auto client = Client::Connect(server_.address(), options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  FakeServer server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, EveryUnaryMethodCarriesRequestAndResponse) {
  server_.models.onListDevices = [](auto*, const auto&, auto* response) {
    response->add_devices()->set_name("cuda:0");
    return grpc::Status::OK;
  };
  server_.models.onListCheckpoints = [](auto*, const auto&, auto* response) {
    response->add_checkpoints()->set_ckpt_name("a.safetensors");
    return grpc::Status::OK;
  };
  server_.models.onPlanCheckpoint = [](auto*, const auto& request, auto* response) {
    response->set_family(request.ckpt_name());
    return grpc::Status::OK;
  };
  server_.models.onLoadCheckpoint = [](auto*, const auto& request, auto* response) {
    response->set_model(request.ckpt_name());
    return grpc::Status::OK;
  };
  server_.models.onApplyLora = [](auto*, const auto& request, auto* response) {
    response->set_model(request.lora_name());
    return grpc::Status::OK;
  };
  server_.models.onSetClipSkip = [](auto*, const auto& request, auto* response) {
    response->set_clip(request.clip() + "'");
    return grpc::Status::OK;
  };
  server_.models.onListModels = [](auto*, const auto&, auto* response) {
    response->add_models()->set_handle("m");
    return grpc::Status::OK;
  };
  server_.models.onUnload = [](auto*, const auto& request, auto* response) {
    response->set_handles_closed(request.handles_size());
    return grpc::Status::OK;
  };
  server_.inference.onEncodeText = [](auto*, const auto& request, auto* response) {
    response->set_conditioning_id(request.text());
    return grpc::Status::OK;
  };
  server_.inference.onDenoise = [](auto*, const auto& request, auto* response) {
    *response->mutable_denoised() = request.x();
    return grpc::Status::OK;
  };
  server_.inference.onDecodeLatent = [](auto*, const auto& request, auto* response) {
    response->add_png(request.vae());
    return grpc::Status::OK;
  };
  server_.inference.onEncodeImage = [](auto*, const auto& request, auto* response) {
    response->mutable_latent()->set_data(request.encoded());
    return grpc::Status::OK;
  };

  EXPECT_EQ(client_->ListDevices()->devices(0).name(), "cuda:0");
  EXPECT_EQ(client_->ListCheckpoints()->checkpoints(0).ckpt_name(), "a.safetensors");
  v1::LoadCheckpointRequest load;
  load.set_ckpt_name("b");
  EXPECT_EQ(client_->PlanCheckpoint(load)->family(), "b");
  EXPECT_EQ(client_->LoadCheckpoint(load)->model(), "b");
  v1::ApplyLoraRequest lora;
  lora.set_lora_name("ink");
  EXPECT_EQ(client_->ApplyLora(lora)->model(), "ink");
  v1::SetClipSkipRequest skip;
  skip.set_clip("c");
  EXPECT_EQ(client_->SetClipSkip(skip)->clip(), "c'");
  EXPECT_EQ(client_->ListModels()->models(0).handle(), "m");
  v1::UnloadRequest unload;
  unload.add_handles("m");
  EXPECT_EQ(client_->Unload(unload)->handles_closed(), 1);
  v1::EncodeTextRequest text;
  text.set_text("fox");
  EXPECT_EQ(client_->EncodeText(text)->conditioning_id(), "fox");
  v1::DenoiseRequest denoise;
  denoise.mutable_x()->set_data("xx");
  EXPECT_EQ(client_->Denoise(denoise)->denoised().data(), "xx");
  v1::DecodeLatentRequest decode;
  decode.set_vae("v");
  EXPECT_EQ(client_->DecodeLatent(decode)->png(0), "v");
  v1::EncodeImageRequest encode;
  encode.set_encoded("png");
  EXPECT_EQ(client_->EncodeImage(encode)->latent().data(), "png");
}

TEST_F(ClientTest, ErrorsKeepCodeAndMessage) {
  for (int code = 1; code <= 16; ++code) {
    server_.models.onLoadCheckpoint = [code](auto*, const auto&, auto*) {
      return grpc::Status(static_cast<grpc::StatusCode>(code), "who holds what: ü");
    };
    absl::Status status = client_->LoadCheckpoint({}).status();
    EXPECT_EQ(static_cast<int>(status.code()), code);
    EXPECT_EQ(status.message(), "who holds what: ü");
  }
}

TEST_F(ClientTest, LoadStreamReportsProgressThenTheResult) {
  server_.models.onLoadCheckpointStream = [](auto*, const auto& request, auto* writer) {
    for (int bytes : {0, 50, 100}) {
      v1::LoadCheckpointEvent event;
      event.mutable_progress()->set_bytes_done(bytes);
      writer->Write(event);
    }
    v1::LoadCheckpointEvent done;
    done.mutable_done()->set_model(request.ckpt_name());
    writer->Write(done);
    return grpc::Status::OK;
  };
  v1::LoadCheckpointRequest request;
  request.set_ckpt_name("a");
  std::vector<int64_t> seen;
  auto loaded = client_->LoadCheckpointStream(
      request, [&](const v1::LoadProgress& progress) { seen.push_back(progress.bytes_done()); });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model(), "a");
  EXPECT_THAT(seen, ElementsAre(0, 50, 100));
}

TEST_F(ClientTest, StreamThatEndsWithoutResultIsInternal) {
  server_.models.onLoadCheckpointStream = [](auto*, const auto&, auto*) {
    return grpc::Status::OK;
  };
  absl::Status status = client_->LoadCheckpointStream({}, [](const v1::LoadProgress&) {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("without a result"));
}

TEST_F(ClientTest, ErrorAfterTheResultWins) {
  server_.models.onLoadCheckpointStream = [](auto*, const auto&, auto* writer) {
    v1::LoadCheckpointEvent done;
    done.mutable_done()->set_model("m");
    writer->Write(done);
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "measured bytes differ");
  };
  EXPECT_EQ(client_->LoadCheckpointStream({}, [](const v1::LoadProgress&) {}).status(),
            absl::DataLossError("measured bytes differ"));
}

TEST_F(ClientTest, InferReportsPhasesPlacesStepsAndPreviews) {
  server_.inference.onInfer = [](auto*, const auto& request, auto* writer) {
    v1::InferEvent event;
    event.mutable_queue()->set_position(3);
    writer->Write(event);
    event.set_phase("text");
    writer->Write(event);
    event.mutable_progress()->set_step(1);
    event.mutable_progress()->set_preview_png("preview");
    writer->Write(event);
    event.mutable_result()->set_seed(request.options().seed());
    event.mutable_result()->add_png("image");
    writer->Write(event);
    return grpc::Status::OK;
  };
  v1::InferRequest request;
  request.mutable_options()->set_seed(~uint64_t{0});
  std::vector<std::string> phases, previews;
  SampleCallbacks callbacks;
  callbacks.phase = [&](std::string_view phase) { phases.emplace_back(phase); };
  std::vector<int> places;
  callbacks.queue = [&](const v1::QueueProgress& queue) { places.push_back(queue.position()); };
  callbacks.progress = [&](const v1::StepProgress& step) {
    previews.push_back(step.preview_png());
  };
  auto result = client_->Infer(request, callbacks);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->seed(), ~uint64_t{0});
  EXPECT_EQ(result->png(0), "image");
  EXPECT_THAT(phases, ElementsAre("text"));
  EXPECT_THAT(places, ElementsAre(3));
  EXPECT_THAT(previews, ElementsAre("preview"));
  EXPECT_TRUE(client_->Infer(request, {}).ok());
}

TEST_F(ClientTest, SampleReturnsTheLatentOfAnySize) {
  constexpr size_t kBytes = 9 << 20;  // above gRPC's own limit of 4 MiB
  server_.inference.onSample = [](auto*, const auto&, auto* writer) {
    v1::SampleEvent event;
    event.mutable_progress()->set_step(1);
    writer->Write(event);
    event.mutable_latent()->set_data(std::string(kBytes, 'x'));
    writer->Write(event);
    return grpc::Status::OK;
  };
  int steps = 0;
  SampleCallbacks callbacks;
  callbacks.progress = [&](const v1::StepProgress&) { ++steps; };
  auto latent = client_->Sample({}, callbacks);
  ASSERT_TRUE(latent.ok()) << latent.status();
  EXPECT_EQ(latent->data().size(), kBytes);
  EXPECT_EQ(steps, 1);
}

TEST_F(ClientTest, RetriesOnlyWhatChangesNothing) {
  std::atomic<int> lists = 0, loads = 0, unloads = 0;
  const grpc::Status unavailable(grpc::StatusCode::UNAVAILABLE, "draining");
  server_.models.onListModels = [&](auto*, const auto&, auto*) {
    return ++lists < 3 ? unavailable : grpc::Status::OK;
  };
  server_.models.onLoadCheckpoint = [&](auto*, const auto&, auto*) {
    ++loads;
    return unavailable;
  };
  server_.models.onUnload = [&](auto*, const auto&, auto*) {
    ++unloads;
    return unavailable;
  };
  EXPECT_TRUE(client_->ListModels().ok());
  EXPECT_EQ(lists, 3);
  EXPECT_EQ(client_->LoadCheckpoint({}).status(), absl::UnavailableError("draining"));
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(client_->Unload({}).status(), absl::UnavailableError("draining"));
  EXPECT_EQ(unloads, 1);
}

TEST_F(ClientTest, OtherErrorsAreNotRetried) {
  std::atomic<int> calls = 0;
  server_.models.onListModels = [&](auto*, const auto&, auto*) {
    ++calls;
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue full");
  };
  EXPECT_EQ(client_->ListModels().status(), absl::ResourceExhaustedError("queue full"));
  EXPECT_EQ(calls, 1);
}

// As the daemon refuses what its queue has no room for.
grpc::Status TurnedAway(int seconds) {
  details::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(seconds);
  details::Status status;
  google::protobuf::Any* detail = status.add_details();
  detail->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  detail->set_value(info.SerializeAsString());
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue full",
                      status.SerializeAsString());
}

TEST_F(ClientTest, WhatIsTurnedAwayIsSentAgainWhenTheServerSays) {
  std::vector<absl::Time> sent;
  server_.inference.onInfer = [&](auto*, const auto&, auto* writer) {
    sent.push_back(absl::Now());
    if (sent.size() == 1) return TurnedAway(1);
    v1::InferEvent event;
    event.mutable_result()->add_png("image");
    writer->Write(event);
    return grpc::Status::OK;
  };
  const auto result = client_->Infer({}, {});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_GE(sent[1] - sent[0], absl::Seconds(1));
}

TEST_F(ClientTest, WhatIsTurnedAwayIsGivenUpWhereTheTimeIsShort) {
  std::atomic<int> unloads = 0;
  server_.models.onUnload = [&](auto*, const auto&, auto*) {
    ++unloads;
    return TurnedAway(90);
  };
  CallOptions call;
  call.timeout = absl::Seconds(60);
  const absl::Status status = client_->Unload({}, call).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(RetryDelayOf(status), absl::Seconds(90));
  ConnectOptions once;
  once.attempts = 1;
  EXPECT_TRUE(absl::IsResourceExhausted(Connect(once)->Unload({}).status()));
  EXPECT_EQ(unloads, 2);
}

TEST_F(ClientTest, NothingIsSentAgainThatHadBegun) {
  std::atomic<int> samples = 0;
  server_.inference.onSample = [&](auto*, const auto&, auto* writer) {
    ++samples;
    v1::SampleEvent event;
    event.mutable_progress()->set_step(1);
    writer->Write(event);
    return TurnedAway(0);
  };
  EXPECT_TRUE(absl::IsResourceExhausted(client_->Sample({}, {}).status()));
  EXPECT_EQ(samples, 1);
}

TEST_F(ClientTest, CancellerStopsTheWaitForTheNextTry) {
  absl::Notification turned_away;
  server_.models.onUnload = [&](auto*, const auto&, auto*) {
    turned_away.Notify();
    return TurnedAway(3600);
  };
  Canceller canceller;
  std::thread other([&] {
    turned_away.WaitForNotification();
    canceller.Cancel();
  });
  CallOptions call;
  call.canceller = &canceller;
  EXPECT_TRUE(absl::IsCancelled(client_->Unload({}, call).status()));
  other.join();
}

TEST_F(ClientTest, TimeoutIsDeadlineExceededAndReachesTheServer) {
  absl::Notification release;
  std::atomic<bool> finite_deadline = false;
  server_.models.onLoadCheckpoint = [&](grpc::ServerContext* context, const auto&, auto*) {
    finite_deadline =
        context->deadline() < std::chrono::system_clock::now() + std::chrono::minutes(1);
    release.WaitForNotification();
    return grpc::Status::OK;
  };
  CallOptions call;
  call.timeout = absl::Milliseconds(200);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client_->LoadCheckpoint({}, call).status()));
  release.Notify();
  server_.Stop();
  EXPECT_TRUE(finite_deadline);
}

// The handler streams until the client has gone; then the server knows.
TEST_F(ClientTest, CancellerStopsACallUnderWayAndTellsTheServer) {
  absl::Notification server_saw_cancel;
  server_.inference.onInfer = [&](grpc::ServerContext* context, const auto&, auto* writer) {
    v1::InferEvent event;
    event.mutable_progress()->set_step(1);
    while (!context->IsCancelled()) writer->Write(event);
    server_saw_cancel.Notify();
    return grpc::Status::CANCELLED;
  };
  Canceller canceller;
  CallOptions call;
  call.canceller = &canceller;
  SampleCallbacks callbacks;
  callbacks.progress = [&](const v1::StepProgress&) { canceller.Cancel(); };
  EXPECT_TRUE(absl::IsCancelled(client_->Infer({}, callbacks, call).status()));
  EXPECT_TRUE(server_saw_cancel.WaitForNotificationWithTimeout(absl::Seconds(10)));
  server_.Stop();
}

TEST_F(ClientTest, CancellerStopsFromAnotherThread) {
  absl::Notification started, release;
  server_.models.onLoadCheckpoint = [&](auto*, const auto&, auto*) {
    started.Notify();
    release.WaitForNotification();
    return grpc::Status::OK;
  };
  Canceller canceller;
  std::thread other([&] {
    started.WaitForNotification();
    canceller.Cancel();
  });
  CallOptions call;
  call.canceller = &canceller;
  EXPECT_TRUE(absl::IsCancelled(client_->LoadCheckpoint({}, call).status()));
  other.join();
  release.Notify();
  server_.Stop();
}

TEST_F(ClientTest, CancelledCancellerStopsLaterCallsAtOnce) {
  std::atomic<int> calls = 0;
  server_.models.onListModels = [&](auto*, const auto&, auto*) {
    ++calls;
    return grpc::Status::OK;
  };
  Canceller canceller;
  canceller.Cancel();
  EXPECT_TRUE(canceller.cancelled());
  CallOptions call;
  call.canceller = &canceller;
  EXPECT_TRUE(absl::IsCancelled(client_->ListModels(call).status()));
  EXPECT_TRUE(absl::IsCancelled(client_->Infer({}, {}, call).status()));
  EXPECT_EQ(calls, 0);
}

TEST_F(ClientTest, SendsItsTokenAndItsCheckpointWithEachCall) {
  std::string authorization, checkpoint;
  server_.models.onListDevices = [&](grpc::ServerContext* context, const auto&, auto*) {
    const auto& metadata = context->client_metadata();
    for (auto [key, value] : {std::pair("authorization", &authorization),
                              std::pair("x-distorch-checkpoint", &checkpoint)}) {
      auto found = metadata.find(key);
      *value = found == metadata.end() ? "none"
                                       : std::string(found->second.data(), found->second.size());
    }
    return grpc::Status::OK;
  };
  EXPECT_TRUE(client_->ListDevices().ok());
  EXPECT_EQ(authorization, "none");
  EXPECT_EQ(checkpoint, "none");
  ConnectOptions options;
  options.auth_token = "secret";
  options.checkpoint = "sdxl/a model.safetensors";
  EXPECT_TRUE(Connect(options)->ListDevices().ok());
  EXPECT_EQ(authorization, "Bearer secret");
  EXPECT_EQ(checkpoint, options.checkpoint);
}

TEST_F(ClientTest, RefusesACheckpointThatNoMetadataCanCarry) {
  ConnectOptions options;
  options.checkpoint = "modèle.safetensors";
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Connect("127.0.0.1:1", options).status()));
}

TEST_F(ClientTest, CallsOfManyThreadsShareOneClient) {
  server_.inference.onEncodeText = [](auto*, const auto& request, auto* response) {
    response->set_conditioning_id(request.text());
    return grpc::Status::OK;
  };
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 20; ++i) {
        v1::EncodeTextRequest request;
        request.set_text(absl::StrCat(thread, "/", i));
        auto response = client_->EncodeText(request);
        if (response.ok() && response->conditioning_id() == request.text()) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 160);
}

TEST(ConnectTest, RefusesWhatCannotBeAnAddress) {
  for (const char* address : {"", "localhost"}) {
    auto client = Client::Connect(address);
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(client.status().message()), HasSubstr("HOST:PORT"));
  }
}

TEST(ConnectTest, RefusesHalfAClientCertificate) {
  ConnectOptions options;
  options.tls.emplace().cert = "-----BEGIN CERTIFICATE-----";
  EXPECT_EQ(Client::Connect("localhost:1", options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ConnectTest, NobodyThereIsUnavailable) {
  std::string address;
  {
    FakeServer gone;
    address = gone.address();
  }
  auto client = Client::Connect(address);
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(absl::IsUnavailable((*client)->LoadCheckpoint({}).status()));
}

}  // namespace
}  // namespace distorch::client
