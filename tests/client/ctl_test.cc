// The real distorchctl against a scripted daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/client/fake_server.h"
#include "tests/client/program.h"

namespace distorch {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::string FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class CtlTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/ctl_test_",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override {
    server_.Stop();
    std::filesystem::remove_all(folder_);
  }

  std::vector<std::string> Environment() const {
    return {absl::StrCat("DISTORCHD_ADDRESS=", server_.address()), "LANG=C.UTF-8"};
  }
  ProgramResult Run(const std::vector<std::string>& arguments,
                    Program::Output output = Program::Output::kPipe) {
    return Program(DISTORCHCTL_PATH, arguments, Environment(), output).Wait();
  }
  // Runs with --json; the output must be one JSON object and nothing else.
  json RunJson(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    ProgramResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, IsEmpty());
    json object = json::parse(result.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(object.is_object()) << result.out;
    return object;
  }
  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

  void ScriptModels() {
    server_.models.onListModels = [](auto*, const auto&, auto* response) {
      for (const char* kind : {"model", "clip", "vae"}) {
        v1::ModelInfo& model = *response->add_models();
        model.set_handle(absl::StrCat(kind, "-1"));
        model.set_kind(kind);
        model.set_ckpt_name("sd15.safetensors");
        model.set_family("sd1");
        model.set_state("READY");
        v1::DeviceBytes& device = *model.add_devices();
        device.set_device("cuda:0");
        device.set_measured_bytes(2048);
      }
      return grpc::Status::OK;
    };
  }

  void ScriptLoad() {
    server_.models.onLoadCheckpointStream = [this](auto*, const auto& request, auto* writer) {
      load_ = request;
      v1::LoadCheckpointEvent event;
      event.mutable_progress()->set_phase("open");
      writer->Write(event);
      for (int done : {0, 50, 100}) {
        event.mutable_progress()->set_phase("weights");
        event.mutable_progress()->set_bytes_done(done << 20);
        event.mutable_progress()->set_bytes_total(100 << 20);
        writer->Write(event);
      }
      v1::LoadCheckpointResponse& done = *event.mutable_done();
      done.set_model("model-1");
      done.set_clip("clip-1");
      done.set_family("sd1");
      (*done.mutable_phase_seconds())["weights"] = 1.5;
      v1::ComponentPlacement& unet = *done.mutable_placement()->add_components();
      unet.set_component("unet");
      unet.set_compute_device("cuda:0");
      for (const char* name : {"cuda:0", "cpu"}) {
        v1::DeviceBytes& device = *unet.add_devices();
        device.set_device(name);
        device.set_planned_bytes(50 << 20);
        device.set_measured_bytes(50 << 20);
        device.set_blocks(7);
      }
      writer->Write(event);
      return grpc::Status::OK;
    };
  }

  void ScriptInfer() {
    server_.inference.onInfer = [this](auto*, const auto& request, auto* writer) {
      infer_ = request;
      v1::InferEvent event;
      event.set_phase("text");
      writer->Write(event);
      for (int step = 1; step <= 2; ++step) {
        v1::StepProgress& progress = *event.mutable_progress();
        progress.set_step(step);
        progress.set_steps(2);
        progress.set_seconds(0.5);
        if (request.preview_every() > 0) progress.set_preview_png(absl::StrCat("preview", step));
        writer->Write(event);
      }
      v1::InferResult& result = *event.mutable_result();
      for (int i = 0; i < request.batch_size(); ++i) result.add_png(absl::StrCat("image", i));
      result.set_seed(request.options().seed());
      (*result.mutable_phase_seconds())["sample"] = 1;
      writer->Write(event);
      return grpc::Status::OK;
    };
  }

  FakeServer server_;
  v1::LoadCheckpointRequest load_;
  v1::InferRequest infer_;
  std::string folder_;
};

TEST_F(CtlTest, HelpOfEveryCommandHasExamples) {
  EXPECT_EQ(Run({"--version"}).out, "distorchctl " DISTORCH_VERSION "\n");
  ProgramResult help = Run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("DISTORCHD_ADDRESS"), HasSubstr("127.0.0.1:50051")));
  for (const char* command : {"devices", "checkpoints", "plan", "load", "models", "infer", "encode",
                              "lora", "clip_skip", "unload"}) {
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

TEST_F(CtlTest, LoadSetsOnlyTheGivenFields) {
  ScriptLoad();
  ASSERT_EQ(Run({"load", "a/b.safetensors"}).exit_code, 0);
  v1::LoadCheckpointRequest expected;
  expected.set_ckpt_name("a/b.safetensors");
  EXPECT_EQ(load_.DebugString(), expected.DebugString());

  ASSERT_EQ(Run({"load",
                 "b",
                 "--unet_compute_device=cuda:0",
                 "--unet_virtual_vram_gb",
                 "1.5",
                 "--unet_donor_device=cuda:1,cpu",
                 "--clip_compute_device=cpu",
                 "--clip_virtual_vram_gb=0",
                 "--clip_donor_device=cpu",
                 "--vae_device=cuda:1",
                 "--unet_expert_mode_allocations=cuda:0,2gb;cpu,*",
                 "--clip_expert_mode_allocations",
                 "",
                 "--high_precision_loras=false",
                 "--eject_models",
                 "true",
                 "--weight_dtype=fp16",
                 "--lease_seconds=60",
                 "--reference_rounding=true",
                 "--execution=holder"})
                .exit_code,
            0);
  expected.set_ckpt_name("b");
  expected.set_unet_compute_device("cuda:0");
  expected.set_unet_virtual_vram_gb(1.5);
  expected.set_unet_donor_device("cuda:1,cpu");
  expected.set_clip_compute_device("cpu");
  expected.set_clip_virtual_vram_gb(0);
  expected.set_clip_donor_device("cpu");
  expected.set_vae_device("cuda:1");
  expected.set_unet_expert_mode_allocations("cuda:0,2gb;cpu,*");
  expected.set_clip_expert_mode_allocations("");
  expected.set_high_precision_loras(false);
  expected.set_eject_models(true);
  expected.set_weight_dtype("fp16");
  expected.set_lease_seconds(60);
  expected.set_reference_rounding(true);
  expected.set_execution("holder");
  EXPECT_EQ(load_.DebugString(), expected.DebugString());
}

TEST_F(CtlTest, LoadPrintsProgressThenPlacementAndHandles) {
  ScriptLoad();
  ProgramResult result = Run({"load", "sd15.safetensors"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, StartsWith("open\nweights    0 %  0 B of 100 MiB\nweights   50 %"));
  EXPECT_THAT(result.out, StartsWith("sd15.safetensors (sd1): loaded\n"));
  EXPECT_THAT(result.out, HasSubstr("unet       cuda:0 *  ############............  50.0 %"));
  EXPECT_THAT(result.out, HasSubstr("model   model-1\nclip    clip-1\nvae     none in this file\n"
                                    "phases  weights 1.50 s\n"));

  json object = RunJson({"load", "sd15.safetensors"});
  EXPECT_EQ(object["model"], "model-1");
  EXPECT_EQ(object["placement"]["components"][0]["devices"][1]["measured_bytes"], 50 << 20);
  EXPECT_EQ(object["phase_seconds"]["weights"], 1.5);
}

TEST_F(CtlTest, TerminalGetsBarsAndRedrawnProgress) {
  ScriptLoad();
  std::string text = Run({"load", "sd15.safetensors"}, Program::Output::kTerminal).out;
  EXPECT_THAT(text, AllOf(HasSubstr("\r\x1b[Kweights"), HasSubstr("100 MiB of 100 MiB")));
  EXPECT_THAT(text, HasSubstr("████████████░░░░░░░░░░░░"));
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ksd15.safetensors (sd1): loaded"));
}

TEST_F(CtlTest, PlanSaysWhetherItFitsAndWhyNot) {
  server_.models.onPlanCheckpoint = [](auto*, const auto&, auto* response) {
    response->set_family("sd1");
    response->set_reason("cuda:0 lacks 1 GiB: held by model-7");
    v1::ComponentPlacement& unet = *response->mutable_placement()->add_components();
    unet.set_component("unet");
    unet.set_compute_device("cuda:0");
    v1::DeviceBytes& device = *unet.add_devices();
    device.set_device("cuda:0");
    device.set_planned_bytes(11520);
    v1::BlockPlacement& block = *unet.add_blocks();
    block.set_name("diffusion_model.out.2");
    block.set_device("cuda:0");
    block.set_bytes(11520);
    return grpc::Status::OK;
  };
  ProgramResult result = Run({"plan", "a"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, StartsWith("a (sd1): does not fit\ncuda:0 lacks 1 GiB: held by model-7"));
  EXPECT_THAT(result.out, Not(HasSubstr("diffusion_model")));
  EXPECT_THAT(Run({"plan", "a", "--blocks"}).out,
              HasSubstr("unet       diffusion_model.out.2  cuda:0  11520\n"));

  json object = RunJson({"plan", "a"});
  EXPECT_EQ(object["fits"], false);
  EXPECT_THAT(object["placement"]["components"][0]["blocks"], IsEmpty());
  object = RunJson({"plan", "a", "--blocks"});
  EXPECT_EQ(object["placement"]["components"][0]["blocks"][0]["bytes"], 11520);
}

TEST_F(CtlTest, InferFindsHandlesSendsDefaultsAndWritesTheImage) {
  ScriptModels();
  ScriptInfer();
  ProgramResult result = Run({"infer", "--prompt=a fox", "--output", Path("fox.png")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(FileBytes(Path("fox.png")), "image0");
  EXPECT_EQ(infer_.model(), "model-1");
  EXPECT_EQ(infer_.clip(), "clip-1");
  EXPECT_EQ(infer_.vae(), "vae-1");
  EXPECT_EQ(infer_.width(), 512);
  EXPECT_EQ(infer_.options().steps(), 20);
  EXPECT_EQ(infer_.options().cfg(), 8);
  EXPECT_EQ(infer_.options().sampler_name(), "euler");
  EXPECT_EQ(infer_.options().scheduler(), "normal");
  EXPECT_EQ(infer_.options().denoise(), 1);
  EXPECT_FALSE(infer_.options().has_guidance());
  EXPECT_THAT(result.out, HasSubstr(absl::StrCat("wrote ", Path("fox.png"), " (6 B)\nseed    ",
                                                 infer_.options().seed(), "\n")));
  EXPECT_THAT(result.err, HasSubstr("step 1 of 2  500 ms/step  500 ms left\n"));
}

TEST_F(CtlTest, InferRandomSeedsDifferAndStayExactInJson) {
  ScriptModels();
  ScriptInfer();
  uint64_t first = RunJson({"infer", "--prompt=x", "-o", Path("a.png")})["seed"];
  uint64_t second = RunJson({"infer", "--prompt=x", "-o", Path("a.png")})["seed"];
  EXPECT_NE(first, second);
  EXPECT_LT(first, uint64_t{1} << 53);
  EXPECT_EQ(
      RunJson({"infer", "--prompt=x", "-o", Path("a.png"), "--seed=18446744073709551615"})["seed"],
      ~uint64_t{0});
}

TEST_F(CtlTest, InferBatchPreviewsImageAndMask) {
  ScriptInfer();
  std::ofstream(Path("init.png"), std::ios::binary) << "init";
  std::ofstream(Path("mask.png"), std::ios::binary) << "mask";
  json object = RunJson({"infer", "--model=m", "--clip=c", "--vae=v", "--prompt=x", "--negative=y",
                         "--batch_size=2", "--preview_every=1", "--init_image", Path("init.png"),
                         "--mask_image", Path("mask.png"), "--denoise=0.5", "--guidance=3.5",
                         "--height=64", "--output", Path("out.png")});
  EXPECT_EQ(infer_.init_image(), "init");
  EXPECT_EQ(infer_.mask_image(), "mask");
  EXPECT_EQ(infer_.negative_prompt(), "y");
  EXPECT_EQ(infer_.width(), 512);
  EXPECT_EQ(infer_.height(), 64);
  EXPECT_EQ(infer_.options().denoise(), 0.5);
  EXPECT_EQ(infer_.options().guidance(), 3.5);
  EXPECT_EQ(object["files"], (json{Path("out-0.png"), Path("out-1.png")}));
  EXPECT_EQ(object["previews"], (json{Path("out-preview-001.png"), Path("out-preview-002.png")}));
  EXPECT_EQ(object["model"], "m");
  EXPECT_EQ(FileBytes(Path("out-1.png")), "image1");
  EXPECT_EQ(FileBytes(Path("out-preview-002.png")), "preview2");
}

TEST_F(CtlTest, InferChoosesTheFormatByNameOrTheNameByFormat) {
  ScriptModels();
  ScriptInfer();
  RunJson({"infer", "--prompt=x", "-o", Path("a.jpg"), "--tile_size=256"});
  EXPECT_EQ(infer_.image_format(), "jpeg");
  EXPECT_EQ(infer_.tile_size(), 256);
  RunJson({"infer", "--prompt=x", "-o", Path("a.webp"), "--image_format=webp"});
  EXPECT_EQ(infer_.image_format(), "webp");
  ProgramResult result = Run({"infer", "--prompt=x", "-o", Path("a.png"), "--image_format=webp"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("not the name of a webp image"));
}

TEST_F(CtlTest, InferStacksLorasForItsOwnTime) {
  ScriptModels();
  ScriptInfer();
  std::vector<std::string> asked;
  server_.models.onApplyLora = [&](auto*, const auto& request, auto* response) {
    asked.push_back(absl::StrCat(request.model(), " ", request.clip(), " ", request.lora_name(),
                                 " ", request.strength_model(), " ", request.strength_clip()));
    if (request.lora_name() == "missing") return grpc::Status(grpc::StatusCode::NOT_FOUND, "no");
    response->set_model(request.model() + "+");
    response->set_clip("clip-1");  // one that is loaded anyway
    return grpc::Status::OK;
  };
  std::vector<std::string> closed;
  server_.models.onUnload = [&](auto*, const auto& request, auto*) {
    closed.assign(request.handles().begin(), request.handles().end());
    return grpc::Status::OK;
  };
  ProgramResult result = Run({"infer", "--prompt=x", "-o", Path("a.png"), "--lora=ink:v2:0.8",
                              "--lora", "snow:1:-0.5", "--lora=plain"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(asked, ElementsAre("model-1 clip-1 ink:v2 0.8 0.8", "model-1+ clip-1 snow 1 -0.5",
                                 "model-1++ clip-1 plain 1 1"));
  EXPECT_EQ(infer_.model(), "model-1+++");
  EXPECT_EQ(infer_.clip(), "clip-1");
  EXPECT_THAT(closed, ElementsAre("model-1+", "model-1++", "model-1+++"));

  closed.clear();
  EXPECT_EQ(
      Run({"infer", "--prompt=x", "-o", Path("a.png"), "--lora=ink", "--lora=missing"}).exit_code,
      1);
  EXPECT_THAT(closed, ElementsAre("model-1+"));
  EXPECT_EQ(Run({"infer", "--prompt=x", "--lora=:0.5"}).exit_code, 2);
}

TEST_F(CtlTest, InferChecksFilesBeforeItAsksTheServer) {
  ScriptModels();
  ScriptInfer();
  ProgramResult result = Run({"infer", "--prompt=x", "--output=/no/such/folder/a.png"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("no folder '/no/such/folder'"));
  result = Run({"infer", "--prompt=x", "--init_image=/no/such.png", "-o", Path("a.png")});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, StartsWith("distorchctl: NOT_FOUND: cannot read '/no/such.png'"));
  EXPECT_EQ(infer_.prompt(), "");
}

TEST_F(CtlTest, CtrlCCancelsTheCallAndExitsWith130) {
  absl::Notification started, server_saw_cancel;
  server_.inference.onInfer = [&](grpc::ServerContext* context, const auto&, auto* writer) {
    v1::InferEvent event;
    event.set_phase("sample");
    writer->Write(event);
    started.Notify();
    while (!context->IsCancelled()) writer->Write(event);
    server_saw_cancel.Notify();
    return grpc::Status::CANCELLED;
  };
  Program program(DISTORCHCTL_PATH,
                  {"infer", "--prompt=x", "--model=m", "--clip=c", "--vae=v", "-o", Path("a.png")},
                  Environment());
  started.WaitForNotification();
  program.Signal(SIGINT);
  ProgramResult result = program.Wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.err, HasSubstr("distorchctl: CANCELLED: interrupted\n"));
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_TRUE(server_saw_cancel.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_FALSE(std::filesystem::exists(Path("a.png")));
  server_.Stop();
}

TEST_F(CtlTest, UnloadPrintsTheReceipt) {
  v1::UnloadRequest seen;
  server_.models.onUnload = [&](auto*, const auto& request, auto* response) {
    seen = request;
    response->set_handles_closed(2);
    v1::DeviceFreed& freed = *response->add_freed();
    freed.set_device("cuda:0");
    freed.set_bytes(3 << 20);
    return grpc::Status::OK;
  };
  ProgramResult result = Run({"unload", "m", "c", "--force"});
  EXPECT_EQ(result.out, "closed 2 handles\nDEVICE     FREED\ncuda:0  3.00 MiB\n");
  EXPECT_THAT(seen.handles(), testing::ElementsAre("m", "c"));
  EXPECT_TRUE(seen.force());
  EXPECT_FALSE(seen.all());
  json object = RunJson({"unload", "--all"});
  EXPECT_TRUE(seen.all());
  EXPECT_FALSE(seen.force());
  EXPECT_EQ(object["freed"][0]["bytes"], 3 << 20);
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

}  // namespace
}  // namespace distorch
