// Calls in time: streams, cancellation, deadlines and large messages, through a real client and
// server on loopback.
#include <grpcpp/client_context.h>

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/requests.h"
#include "tests/server/server_fixture.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;

class CallsTest : public ServerFixture {
 protected:
  void SetUp() override { StartServer(); }
};

TEST_F(CallsTest, LoadStreamThrottlesProgressAndEndsWithTheResult) {
  core.load = [this](const LoadSpec&, CancelTokenPtr,
                     std::function<void(const LoadProgress&)> progress, Done<LoadResult> done) {
    core.Spawn([progress, done = std::move(done)]() mutable {
      progress({"open", 0, 0});
      progress({"plan", 0, 0});
      for (int i = 1; i <= 10'000; ++i) progress({"weights", i, 10'000});
      LoadResult result;
      result.model = "model-1";
      std::move(done)(std::move(result));
      progress({"weights", 1, 1});  // too late: ignored
    });
  };
  grpc::ClientContext context;
  auto reader = models->LoadCheckpointStream(&context, LoadRequest());
  std::vector<v1::LoadCheckpointEvent> events;
  for (v1::LoadCheckpointEvent event; reader->Read(&event);) events.push_back(event);
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_GE(events.size(), 4u);
  EXPECT_LT(events.size(), 1000u);
  EXPECT_EQ(events.front().progress().phase(), "open");
  EXPECT_EQ(events[events.size() - 2].progress().bytes_done(), 10'000);
  EXPECT_EQ(events.back().done().model(), "model-1");
}

TEST_F(CallsTest, CancellingALoadStreamReachesTheCore) {
  absl::Status reason;
  absl::Notification noticed;
  core.load = [&](const LoadSpec&, CancelTokenPtr cancel,
                  std::function<void(const LoadProgress&)> progress, Done<LoadResult> done) {
    core.Spawn([&, cancel, progress, done = std::move(done)]() mutable {
      progress({"weights", 1, 100});
      reason = AwaitCancellation(cancel);
      progress({"weights", 2, 100});
      std::move(done)(reason);
      noticed.Notify();
    });
  };
  grpc::ClientContext context;
  auto reader = models->LoadCheckpointStream(&context, LoadRequest());
  v1::LoadCheckpointEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  noticed.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(reason)) << reason;
}

TEST_F(CallsTest, CancellingAUnaryCallReachesTheCore) {
  absl::Notification started, noticed;
  core.denoise = [&](const DenoiseSpec&, CancelTokenPtr cancel, Done<HostTensor> done) {
    core.Spawn([&, cancel, done = std::move(done)]() mutable {
      started.Notify();
      std::move(done)(AwaitCancellation(cancel));
      noticed.Notify();
    });
  };
  grpc::ClientContext context;
  std::thread canceller([&] {
    started.WaitForNotification();
    context.TryCancel();
  });
  v1::DenoiseResponse response;
  EXPECT_EQ(inference->Denoise(&context, DenoiseRequest(), &response).error_code(),
            grpc::StatusCode::CANCELLED);
  canceller.join();
  noticed.WaitForNotification();
}

TEST_F(CallsTest, TheDeadlineIsTheTokensAndItsReason) {
  absl::Status reason;
  absl::Notification noticed;
  core.infer = [&](const InferSpec&, CancelTokenPtr cancel, InferCallbacks,
                   Done<InferResult> done) {
    core.Spawn([&, cancel, done = std::move(done)]() mutable {
      EXPECT_LT(cancel->deadline(), absl::Now() + absl::Minutes(1));
      reason = AwaitCancellation(cancel);
      std::move(done)(reason);
      noticed.Notify();
    });
  };
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  auto reader = inference->Infer(&context, InferRequest());
  v1::InferEvent event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  noticed.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(reason)) << reason;
}

TEST_F(CallsTest, ACallWithoutDeadlineHasNone) {
  core.denoise = [](const DenoiseSpec&, CancelTokenPtr cancel, Done<HostTensor> done) {
    EXPECT_EQ(cancel->deadline(), absl::InfiniteFuture());
    std::move(done)(HostTensor{DType::kF32, {1}, std::string(4, '\1')});
  };
  grpc::ClientContext context;
  v1::DenoiseResponse response;
  EXPECT_TRUE(inference->Denoise(&context, DenoiseRequest(), &response).ok());
  EXPECT_EQ(response.denoised().data(), std::string(4, '\1'));
}

TEST_F(CallsTest, ASlowReaderHoldsNothingUpAndMissesNoResult) {
  constexpr int kSteps = 500;
  absl::Notification all_sent;
  core.infer = [&](const InferSpec&, CancelTokenPtr, InferCallbacks callbacks,
                   Done<InferResult> done) {
    core.Spawn([&, callbacks, done = std::move(done)]() mutable {
      callbacks.phase("text");
      callbacks.phase("sample");
      for (int step = 1; step <= kSteps; ++step)
        callbacks.progress({step, kSteps, 0.1, std::string(256 << 10, 'p')});
      callbacks.phase("decode");
      InferResult result;
      result.png = {std::string(4 << 20, 'r')};
      result.seed = 7;
      std::move(done)(std::move(result));
      all_sent.Notify();
    });
  };
  grpc::ClientContext context;
  auto reader = inference->Infer(&context, InferRequest());
  all_sent.WaitForNotification();  // although nobody has read
  std::vector<std::string> phases;
  int progress = 0, last_step = 0;
  v1::InferResult result;
  for (v1::InferEvent event; reader->Read(&event);) {
    EXPECT_FALSE(result.png_size() > 0) << "something came after the result";
    if (event.has_progress()) {
      ++progress;
      EXPECT_GT(event.progress().step(), last_step);
      last_step = event.progress().step();
    } else if (event.has_result()) {
      result = event.result();
    } else {
      phases.push_back(event.phase());
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_THAT(phases, ElementsAre("text", "sample", "decode"));
  EXPECT_LT(progress, kSteps / 2);
  EXPECT_EQ(last_step, kSteps);
  EXPECT_EQ(result.seed(), 7u);
  ASSERT_EQ(result.png_size(), 1);
  EXPECT_EQ(result.png(0).size(), 4u << 20);
}

TEST_F(CallsTest, AQuickReaderGetsEveryStep) {
  core.sample = [this](const SampleSpec& spec, CancelTokenPtr, InferCallbacks callbacks,
                       Done<HostTensor> done) {
    EXPECT_FALSE(callbacks.phase);
    core.Spawn([callbacks, latent = spec.latent, done = std::move(done)]() mutable {
      for (int step = 1; step <= 8; ++step)
        callbacks.progress({step, 8, 0.5, step == 4 ? "PNG" : ""});
      std::move(done)(std::move(latent));
    });
  };
  v1::SampleRequest request;
  request.set_model("m");
  request.set_positive_id("p");
  request.set_negative_id("n");
  *request.mutable_latent() = OneFloat();
  grpc::ClientContext context;
  auto reader = inference->Sample(&context, request);
  std::vector<int> steps;
  v1::Tensor latent;
  for (v1::SampleEvent event; reader->Read(&event);) {
    if (event.has_latent()) {
      latent = event.latent();
    } else {
      steps.push_back(event.progress().step());
      EXPECT_EQ(event.progress().has_preview_png(), event.progress().step() == 4);
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_EQ(latent.SerializeAsString(), OneFloat().SerializeAsString());
}

TEST_F(CallsTest, LargeResultsArriveWhole) {
  core.decode = [](const DecodeLatentSpec& spec, CancelTokenPtr, Done<DecodeLatentResult> done) {
    EXPECT_EQ(spec.tile_size, 128);
    DecodeLatentResult result;
    result.images = {DType::kF32, {1, 2048, 2048, 3}, std::string(2048 * 2048 * 3 * 4, 'x')};
    std::move(done)(std::move(result));
  };
  v1::DecodeLatentRequest request;
  request.set_vae("v");
  *request.mutable_latent() = OneFloat();
  request.set_tile_size(128);
  grpc::ClientContext context;
  v1::DecodeLatentResponse response;
  const grpc::Status status = inference->DecodeLatent(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.images().data().size(), 2048u * 2048 * 3 * 4);
}

}  // namespace
}  // namespace distorch
