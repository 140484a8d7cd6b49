// The real distorchctl against a scripted daemon: what all commands share, and the small ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/client/ctl_fixture.h"

namespace distorch {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

TEST_F(CtlTest, HelpOfEveryCommandHasExamples) {
  EXPECT_EQ(Run({"--version"}).out, "distorchctl " DISTORCH_VERSION "\n");
  ProgramResult help = Run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("DISTORCHD_ADDRESS"), HasSubstr("127.0.0.1:50051")));
  for (const char* command : {"devices", "checkpoints", "plan", "load", "models", "infer", "encode",
                              "lora", "clip_skip", "unload", "top"}) {
    EXPECT_THAT(help.out, HasSubstr(absl::StrCat("\n  ", command)));
    ProgramResult result = Run({command, "--help"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.out, HasSubstr(absl::StrCat("\n  distorchctl ", command))) << command;
    EXPECT_THAT(result.err, IsEmpty());
  }
  std::string load_help = Run({"load", "--help"}).out;
  const auto* fields = v1::LoadCheckpointRequest::descriptor();
  for (int i = 1; i < fields->field_count(); ++i) {
    EXPECT_THAT(load_help, HasSubstr(absl::StrCat("--", fields->field(i)->name(), " ")));
  }
}

TEST_F(CtlTest, WrongUsageExitsWith2) {
  const std::vector<std::vector<std::string>> kWrong = {
      {},
      {"sing"},
      {"load"},
      {"load", "a", "--unet_virtual_vram_gb=many"},
      {"load", "a", "--eject_models=perhaps"},
      {"load", "a", "--no_such_flag"},
      {"unload"},
      {"unload", "m", "--all"},
      {"infer"},
      {"infer", "--prompt=x", "--seed=-1"},
      {"infer", "--prompt=x", "--seed=18446744073709551616"},
      {"infer", "--prompt=x", "--cfg=nan"},
      {"infer", "--prompt=x", "--steps=0"},
      {"infer", "--prompt=x", "--mask_image=m.png"},
      {"infer", "--prompt=x", "--image_format=bmp"},
      {"infer", "--prompt=x", "--tile_size=-8"},
      {"devices", "--timeout=-1"},
      {"top", "--interval=0"},
  };
  for (const auto& arguments : kWrong) {
    ProgramResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.out;
    EXPECT_THAT(result.err, StartsWith("distorchctl: INVALID_ARGUMENT: "));
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST_F(CtlTest, ServerErrorsKeepCodeAndMessage) {
  server_.models.onListDevices = [](auto*, const auto&, auto*) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "who holds what");
  };
  for (const char* flag : {"--json", "--timeout=60"}) {
    ProgramResult result = Run({"devices", flag});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.err, "distorchctl: RESOURCE_EXHAUSTED: who holds what\n");
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST_F(CtlTest, AddressFlagWinsOverTheEnvironmentAndMayFollowTheCommand) {
  ProgramResult result = Run({"devices", "--address=nonsense"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("INVALID_ARGUMENT: address 'nonsense': expected HOST:PORT"));
}

TEST_F(CtlTest, TimeoutIsDeadlineExceeded) {
  absl::Notification release;
  server_.models.onListModels = [&](auto*, const auto&, auto*) {
    release.WaitForNotification();
    return grpc::Status::OK;
  };
  ProgramResult result = Run({"models", "--timeout=0.3"});
  release.Notify();
  server_.Stop();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, StartsWith("distorchctl: DEADLINE_EXCEEDED: "));
}

TEST_F(CtlTest, DevicesShowUsedMemory) {
  server_.models.onListDevices = [](auto*, const auto&, auto* response) {
    v1::DeviceInfo& device = *response->add_devices();
    device.set_name("cuda:0");
    device.set_kind("cuda");
    device.set_total_bytes(int64_t{8} << 30);
    device.set_free_bytes(int64_t{6} << 30);
    device.set_description("a \x1b[31mred\x1b[0m one");
    return grpc::Status::OK;
  };
  ProgramResult result = Run({"devices"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("cuda:0  cuda  #####...............  25.0 %  6.00 GiB"));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
  EXPECT_EQ(RunJson({"devices"})["devices"][0]["free_bytes"], int64_t{6} << 30);
}

TEST_F(CtlTest, LinksShowSpeedsAndWhatWasCarried) {
  server_.models.onListLinks = [](auto*, const auto&, auto* response) {
    v1::LinkInfo& link = *response->add_links();
    link.set_from("cpu");
    link.set_to("cuda:0");
    link.set_bytes_per_second(12e9);
    link.set_latency_seconds(20e-6);
    link.set_simulated(true);
    link.set_bytes(3 << 20);
    link.set_exposed_seconds(0.25);
    link.set_overlapped_seconds(2.5);
    response->add_links()->set_from("disk");
    return grpc::Status::OK;
  };
  const std::string table = Run({"links"}).out;
  EXPECT_THAT(table, HasSubstr("cpu   cuda:0  12.0 GB/s    20 us  3.00 MiB   250 ms      2.50 s  "
                               "simulated"));
  EXPECT_THAT(table, HasSubstr("disk                  -        -"));
  EXPECT_EQ(RunJson({"links"})["links"][0]["overlapped_seconds"], 2.5);
}

TEST_F(CtlTest, CheckpointsShowWhyAFileIsUnusable) {
  server_.models.onListCheckpoints = [](auto*, const auto&, auto* response) {
    v1::CheckpointInfo& checkpoint = *response->add_checkpoints();
    checkpoint.set_ckpt_name("xl/broken.safetensors");
    checkpoint.set_bytes(1024);
    checkpoint.set_error("header is cut off");
    return grpc::Status::OK;
  };
  EXPECT_THAT(Run({"checkpoints"}).out,
              AllOf(HasSubstr("xl/broken.safetensors"), HasSubstr("header is cut off")));
  EXPECT_EQ(RunJson({"checkpoints"})["checkpoints"][0]["bytes"], 1024);
}

TEST_F(CtlTest, ModelsListHandles) {
  ScriptModels();
  EXPECT_THAT(Run({"models"}).out, HasSubstr("model-1  model  sd15.safetensors  sd1     READY"));
  EXPECT_EQ(RunJson({"models"})["models"][1]["handle"], "clip-1");
}

TEST_F(CtlTest, EncodeSummarisesTheConditioning) {
  ScriptModels();
  server_.inference.onEncodeText = [](auto*, const auto& request, auto* response) {
    response->set_conditioning_id(absl::StrCat(request.clip(), "/", request.text()));
    v1::Tensor& tensor = *response->mutable_conditioning()->mutable_cross_attention();
    tensor.set_dtype(v1::FLOAT32);
    for (int64_t size : {1, 77, 768}) tensor.add_shape(size);
    tensor.set_data(std::string(5 << 20, '\0'));
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"encode", "a (red:1.2) fox"}).out,
            "conditioning_id  clip-1/a (red:1.2) fox\ncross_attention  FLOAT32 [1, 77, 768]\n");
  EXPECT_EQ(RunJson({"encode", "x"})["conditioning"]["cross_attention"]["shape"],
            (json{1, 77, 768}));
}

TEST_F(CtlTest, LoraAndClipSkipPrintNewHandles) {
  ScriptModels();
  v1::ApplyLoraRequest lora;
  server_.models.onApplyLora = [&](auto*, const auto& request, auto* response) {
    lora = request;
    response->set_model("model-2");
    response->set_clip("clip-2");
    response->set_patched(3);
    response->add_unmatched_keys("lora_x");
    return grpc::Status::OK;
  };
  server_.models.onSetClipSkip = [](auto*, const auto& request, auto* response) {
    response->set_clip(absl::StrCat(request.clip(), request.stop_at_layer()));
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"lora", "ink.safetensors", "--strength_model=-0.5"}).out,
            "model    model-2\nclip     clip-2\npatched  3 weights\nunmatched  lora_x\n");
  EXPECT_EQ(lora.lora_name(), "ink.safetensors");
  EXPECT_EQ(lora.model(), "model-1");
  EXPECT_EQ(lora.strength_model(), -0.5);
  EXPECT_EQ(lora.strength_clip(), 1);
  EXPECT_EQ(Run({"clip_skip", "--stop_at_layer", "-2"}).out, "clip  clip-1-2\n");
}

class TopTest : public CtlTest {
 protected:
  void SetUp() override {
    CtlTest::SetUp();
    ScriptModels();
    server_.models.onListDevices = [this](auto*, const auto&, auto* response) {
      v1::DeviceInfo& device = *response->add_devices();
      device.set_name("cuda:0");
      device.set_total_bytes(int64_t{8} << 30);
      device.set_free_bytes(int64_t{6} << 30);
      device.set_queue_length(3);
      if (++looks_ == 3) looked_.Notify();
      return grpc::Status::OK;
    };
  }

  std::atomic<int> looks_ = 0;
  absl::Notification looked_;  // three times
};

TEST_F(TopTest, OncePrintsDevicesAsBarsQueuesAndModels) {
  const ProgramResult result = Run({"top", "--once"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("cuda:0  #####...............  25.0 %  6.00 GiB  8.00 GiB"));
  EXPECT_THAT(result.out, HasSubstr("      3\n"));
  EXPECT_THAT(result.out, HasSubstr("sd15.safetensors  model"));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
  const json object = RunJson({"top"});
  EXPECT_EQ(object["devices"][0]["queue_length"], 3);
  EXPECT_EQ(object["models"][1]["handle"], "clip-1");
}

TEST_F(TopTest, ViewsFollowOneAnotherUntilCtrlC) {
  Program program(DISTORCHCTL_PATH, {"top", "--interval=0.01"}, Environment());
  looked_.WaitForNotification();
  program.Signal(SIGINT);
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("\n\nDEVICE"), Not(HasSubstr("\x1b"))));
}

TEST_F(TopTest, ATerminalIsRedrawnAndGivenBackAsItWas) {
  Program program(DISTORCHCTL_PATH, {"top", "--interval=0.01"}, Environment(),
                  Program::Output::kTerminal);
  looked_.WaitForNotification();
  program.Signal(SIGINT);
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_THAT(result.out, StartsWith("\x1b[?1049h\x1b[?25l\x1b[Hdistorchd at 127.0.0.1:"));
  EXPECT_THAT(result.out, testing::EndsWith("\x1b[?25h\x1b[?1049l"));
}

TEST_F(TopTest, ADaemonThatIsNotThereAtFirstIsAnError) {
  server_.Stop();
  EXPECT_EQ(Run({"top"}).exit_code, 1);
}

TEST_F(CtlTest, TokensComeFromAFileOrTheEnvironment) {
  std::vector<std::string> sent;
  server_.models.onListModels = [&](auto* context, const auto&, auto*) {
    const auto it = context->client_metadata().find("authorization");
    sent.emplace_back(it->second.data(), it->second.size());
    return grpc::Status::OK;
  };
  std::ofstream(Path("token")) << "from-a-file\n";
  for (const char* flag : {"--token_file", "--auth_token_file"})
    EXPECT_EQ(Run({"models", absl::StrCat(flag, "=", Path("token"))}).exit_code, 0);
  for (const char* variable :
       {"DISTORCH_TOKEN=from-outside", "DISTORCHD_AUTH_TOKEN=from-outside"}) {
    std::vector<std::string> environment = Environment();
    environment.push_back(variable);
    EXPECT_EQ(Program(DISTORCHCTL_PATH, {"models"}, environment).Wait().exit_code, 0);
  }
  EXPECT_THAT(sent, testing::ElementsAre("Bearer from-a-file", "Bearer from-a-file",
                                         "Bearer from-outside", "Bearer from-outside"));
}

}  // namespace
}  // namespace distorch
