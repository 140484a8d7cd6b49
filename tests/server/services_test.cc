// The two services through a real client and server on loopback, around a scripted core.
#include <grpcpp/client_context.h>

#include <atomic>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "server/methods.h"
#include "tests/server/requests.h"
#include "tests/server/server_fixture.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ServicesTest : public ServerFixture {
 protected:
  void SetUp() override { StartServer(); }
};

TEST_F(ServicesTest, ListsWhatTheCoreHas) {
  core.devices = {{"cuda:0", "simulated", "description", "uuid-0", 100, 90, 5, 4, 3, 2, 1}};
  core.checkpoints = {{"a.safetensors", 10, "safetensors", "sd1", ""}};
  core.models = {{"model-1", "model", "a.safetensors", "sd1", "READY", 2, {{"cuda:0", 5, 5, 1}}}};

  core.links = {{"cpu", "cuda:0", 12e9, 20e-6, true, 15, 0.25, 0.5}};

  grpc::ClientContext c1, c2, c3, c4;
  v1::ListDevicesResponse devices;
  ASSERT_TRUE(models->ListDevices(&c1, {}, &devices).ok());
  ASSERT_EQ(devices.devices_size(), 1);
  EXPECT_EQ(devices.devices(0).name(), "cuda:0");
  EXPECT_EQ(devices.devices(0).free_bytes(), 90);
  EXPECT_EQ(devices.devices(0).uuid(), "uuid-0");
  EXPECT_EQ(devices.devices(0).queue_length(), 1);

  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(models->ListCheckpoints(&c2, {}, &checkpoints).ok());
  EXPECT_EQ(checkpoints.checkpoints(0).family(), "sd1");

  v1::ListModelsResponse listed;
  ASSERT_TRUE(models->ListModels(&c3, {}, &listed).ok());
  EXPECT_EQ(listed.models(0).in_use(), 2);
  EXPECT_EQ(listed.models(0).devices(0).device(), "cuda:0");

  v1::ListLinksResponse links;
  ASSERT_TRUE(models->ListLinks(&c4, {}, &links).ok());
  ASSERT_EQ(links.links_size(), 1);
  EXPECT_EQ(links.links(0).ShortDebugString(),
            "from: \"cpu\" to: \"cuda:0\" bytes_per_second: 12000000000 latency_seconds: 2e-05 "
            "simulated: true bytes: 15 exposed_seconds: 0.25 overlapped_seconds: 0.5");
}

TEST_F(ServicesTest, PlanGoesThroughTheCore) {
  core.plan = [](const LoadSpec& spec) -> absl::StatusOr<CheckpointPlan> {
    if (spec.ckpt_name != "a.safetensors")
      return absl::NotFoundError("no such checkpoint; near: a.safetensors");
    CheckpointPlan plan;
    plan.family = "sd1";
    plan.placement.emplace_back();
    plan.placement[0].blocks = {{"block", "cpu", 8}};
    plan.reason = "cuda:0 is full";
    return plan;
  };
  grpc::ClientContext c1, c2;
  v1::PlanCheckpointResponse response;
  ASSERT_TRUE(models->PlanCheckpoint(&c1, LoadRequest(), &response).ok());
  EXPECT_EQ(response.reason(), "cuda:0 is full");
  EXPECT_EQ(response.placement().components(0).blocks(0).bytes(), 8);
  v1::LoadCheckpointRequest other;
  other.set_ckpt_name("b");
  const grpc::Status status = models->PlanCheckpoint(&c2, other, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such checkpoint; near: a.safetensors");
}

TEST_F(ServicesTest, LoadAnswersFromTheCoresThread) {
  core.load = [this](const LoadSpec& spec, CancelTokenPtr, auto progress, Done<LoadResult> done) {
    EXPECT_FALSE(progress);
    EXPECT_EQ(spec.unet_virtual_vram_gb, 1.5);
    core.Spawn([done = std::move(done)]() mutable {
      LoadResult result;
      result.model = "model-1";
      result.family = "sd1";
      std::move(done)(std::move(result));
    });
  };
  v1::LoadCheckpointRequest request = LoadRequest();
  request.set_unet_virtual_vram_gb(1.5);
  grpc::ClientContext context;
  v1::LoadCheckpointResponse response;
  const grpc::Status status = models->LoadCheckpoint(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model(), "model-1");
}

TEST_F(ServicesTest, EveryErrorOfTheCoreArrivesAsItIs) {
  for (int code = 1; code <= 16; ++code) {
    core.denoise = [code](const DenoiseSpec&, CancelTokenPtr, Done<HostTensor> done) {
      std::move(done)(
          absl::Status(static_cast<absl::StatusCode>(code), "x: what\nis wrong: 100 % \xc3\xbc"));
    };
    grpc::ClientContext context;
    v1::DenoiseResponse response;
    const grpc::Status status = inference->Denoise(&context, DenoiseRequest(), &response);
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "x: what\nis wrong: 100 % \xc3\xbc");
  }
}

TEST_F(ServicesTest, HugeErrorMessagesStillArriveWithTheirCode) {
  core.denoise = [](const DenoiseSpec&, CancelTokenPtr, Done<HostTensor> done) {
    std::move(done)(absl::ResourceExhaustedError("who holds what: " + std::string(100'000, '\n')));
  };
  grpc::ClientContext context;
  v1::DenoiseResponse response;
  const grpc::Status status = inference->Denoise(&context, DenoiseRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), ::testing::StartsWith("who holds what"));
}

TEST_F(ServicesTest, WhatIsMalformedNeverReachesTheCore) {
  // The core has no hooks: a call would throw.
  grpc::ClientContext contexts[8];
  v1::LoadCheckpointResponse load;
  v1::PlanCheckpointResponse plan;
  v1::UnloadResponse unload;
  v1::SetClipSkipResponse skip;
  v1::EncodeTextResponse text;
  v1::DecodeLatentResponse decode;
  v1::EncodeImageResponse encode;
  v1::DenoiseResponse denoise;
  for (const grpc::Status& status :
       {models->LoadCheckpoint(&contexts[0], {}, &load),
        models->PlanCheckpoint(&contexts[1], {}, &plan), models->Unload(&contexts[2], {}, &unload),
        models->SetClipSkip(&contexts[3], {}, &skip),
        inference->EncodeText(&contexts[4], {}, &text),
        inference->DecodeLatent(&contexts[5], {}, &decode),
        inference->EncodeImage(&contexts[6], {}, &encode),
        inference->Denoise(&contexts[7], {}, &denoise)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(": is required"));
  }
  grpc::ClientContext s1, s2, s3;
  EXPECT_EQ(models->LoadCheckpointStream(&s1, {})->Finish().error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(inference->Infer(&s2, {})->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(inference->Sample(&s3, {})->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServicesTest, QueuesKnowTheClientAndTellItsPosition) {
  core.infer = [](const InferSpec& spec, CancelTokenPtr cancel, InferCallbacks callbacks,
                  Done<InferResult> done) {
    callbacks.queue({3, 0});
    callbacks.queue({2, 1.5});
    InferResult result;
    result.warnings = {absl::StrCat(cancel->client(), " ", spec.priority)};
    std::move(done)(std::move(result));
  };
  v1::InferRequest request = InferRequest();
  request.mutable_options()->set_priority(-4);
  grpc::ClientContext context;
  context.AddMetadata("x-client-id", "studio-7");
  auto reader = inference->Infer(&context, request);
  v1::InferEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.queue().position(), 3);
  EXPECT_FALSE(event.queue().has_predicted_seconds());
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.queue().predicted_seconds(), 1.5);
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.result().warnings(0), "studio-7 -4");
  EXPECT_TRUE(reader->Finish().ok());

  grpc::ClientContext plain, wrong;
  reader = inference->Infer(&plain, InferRequest());
  while (reader->Read(&event)) continue;
  EXPECT_THAT(event.result().warnings(0), ::testing::StartsWith("ipv4:127.0.0.1 "));
  request.mutable_options()->set_priority(11);
  EXPECT_EQ(inference->Infer(&wrong, request)->Finish().error_message(),
            "options.priority: 11 is not from -10 to 10");
}

TEST_F(ServicesTest, TextImageClipSkipAndUnload) {
  core.encode_text = [](const EncodeTextSpec& spec, CancelTokenPtr, Done<EncodeTextResult> done) {
    EncodeTextResult result;
    result.conditioning_id = spec.text;
    result.conditioning.cross_attention = {DType::kF32, {1}, "1234"};
    std::move(done)(std::move(result));
  };
  core.encode_image = [](const EncodeImageSpec& spec, CancelTokenPtr, Done<HostTensor> done) {
    std::move(done)(HostTensor{DType::kU8, {3}, spec.encoded});
  };
  core.clip_skip = [](const std::string& clip, int layer) {
    return absl::StrCat(clip, "@", layer);
  };
  core.unload = [](const UnloadSpec& spec, Done<UnloadReceipt> done) {
    EXPECT_TRUE(spec.all);
    std::move(done)(UnloadReceipt{{{"cpu", 5}, {"cuda:0", 7}}, 3});
  };
  grpc::ClientContext c1, c2, c3, c4;
  v1::EncodeTextRequest text;
  text.set_clip("c");
  text.set_text("");  // an empty prompt is a prompt
  v1::EncodeTextResponse encoded;
  EXPECT_TRUE(inference->EncodeText(&c1, text, &encoded).ok());
  EXPECT_EQ(encoded.conditioning().cross_attention().data(), "1234");

  v1::EncodeImageRequest image;
  image.set_vae("v");
  image.set_encoded("PNG");
  v1::EncodeImageResponse latent;
  EXPECT_TRUE(inference->EncodeImage(&c2, image, &latent).ok());
  EXPECT_EQ(latent.latent().data(), "PNG");

  v1::SetClipSkipRequest skip;
  skip.set_clip("c");
  skip.set_stop_at_layer(-2);
  v1::SetClipSkipResponse skipped;
  EXPECT_TRUE(models->SetClipSkip(&c3, skip, &skipped).ok());
  EXPECT_EQ(skipped.clip(), "c@-2");

  v1::UnloadRequest unload;
  unload.set_all(true);
  v1::UnloadResponse receipt;
  EXPECT_TRUE(models->Unload(&c4, unload, &receipt).ok());
  EXPECT_EQ(receipt.handles_closed(), 3);
  EXPECT_EQ(receipt.freed(1).device(), "cuda:0");
  EXPECT_EQ(receipt.freed(1).bytes(), 7);
}

TEST_F(ServicesTest, ApplyLoraHandsFieldsAndKeysThrough) {
  ApplyLoraSpec asked;
  core.apply_lora = [&](const ApplyLoraSpec& spec, CancelTokenPtr, Done<ApplyLoraResult> done) {
    asked = spec;
    done(ApplyLoraResult{"m2", "c2", 3, {"lora_x.alpha"}, 700});
  };
  grpc::ClientContext good, bad;
  v1::ApplyLoraRequest request;
  v1::ApplyLoraResponse response;
  request.set_model("m");
  request.set_lora_name("ink.safetensors");
  request.set_strength_model(0.5);
  EXPECT_TRUE(models->ApplyLora(&good, request, &response).ok());
  EXPECT_EQ(asked.model, "m");
  EXPECT_EQ(asked.clip, "");
  EXPECT_EQ(asked.lora_name, "ink.safetensors");
  EXPECT_EQ(asked.strength_model, 0.5);
  EXPECT_EQ(asked.strength_clip, 0);
  EXPECT_EQ(response.model(), "m2");
  EXPECT_EQ(response.clip(), "c2");
  EXPECT_EQ(response.patched(), 3);
  EXPECT_THAT(response.unmatched_keys(), testing::ElementsAre("lora_x.alpha"));
  EXPECT_EQ(response.unmatched_count(), 700);

  request.clear_lora_name();
  const grpc::Status status = models->ApplyLora(&bad, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("lora_name"));
}

TEST_F(ServicesTest, TheLogHasOneLineACallAndNoPrompt) {
  core.infer = [](const InferSpec& spec, CancelTokenPtr, InferCallbacks, Done<InferResult> done) {
    std::move(done)(absl::InvalidArgumentError("prompt: '" + spec.prompt + "' is odd"));
  };
  grpc::ClientContext context;
  EXPECT_THAT(inference->Infer(&context, InferRequest())->Finish().error_message(),
              HasSubstr("secret garden"));
  server.reset();
  EXPECT_THAT(log.str(),
              HasSubstr("\"method\":\"Infer\",\"code\":\"INVALID_ARGUMENT\",\"seconds\":"));
  EXPECT_THAT(log.str(), Not(HasSubstr("secret garden")));
}

TEST_F(ServicesTest, EveryMethodHasItsRole) {
  for (const auto* service : {v1::LoadCheckpointRequest::descriptor()->file()->service(0),
                              v1::LoadCheckpointRequest::descriptor()->file()->service(1)}) {
    for (int i = 0; i < service->method_count(); ++i) {
      const std::string name =
          absl::StrCat("/", service->full_name(), "/", service->method(i)->name());
      EXPECT_TRUE(FindMethod(name) != nullptr) << name << " is not in server/methods.h";
    }
  }
}

TEST_F(ServicesTest, ManyClientsAtOnce) {
  core.denoise = [this](const DenoiseSpec& spec, CancelTokenPtr, Done<HostTensor> done) {
    core.Spawn([x = spec.x, done = std::move(done)]() mutable { std::move(done)(std::move(x)); });
  };
  core.devices = {{"cpu", "cpu", "", "", 1, 1, 0, 0, 0, 0, 0}};
  std::atomic<int> good = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      auto stub = v1::InferenceService::NewStub(NewChannel());
      for (int call = 0; call < 20; ++call) {
        grpc::ClientContext c1, c2;
        v1::DenoiseResponse denoised;
        v1::ListDevicesResponse devices;
        good += stub->Denoise(&c1, DenoiseRequest(), &denoised).ok() ? 1 : 0;
        good += models->ListDevices(&c2, {}, &devices).ok() ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(good, 8 * 20 * 2);
}

using SmallReceiveTest = ServerFixture;

TEST_F(SmallReceiveTest, LargerRequestsAreRefused) {
  Options options = WithoutMetrics();
  options.max_receive_mb = 1;
  StartServer(options);
  v1::DenoiseRequest request = DenoiseRequest();
  request.mutable_x()->set_data(std::string(2 << 20, '\0'));
  grpc::ClientContext context;
  v1::DenoiseResponse response;
  EXPECT_EQ(inference->Denoise(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace distorch
