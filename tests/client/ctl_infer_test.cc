// distorchctl infer against a scripted daemon.
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
#include "tests/client/ctl_fixture.h"

namespace distorch {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::string FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
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
  EXPECT_EQ(infer_.options().priority(), 0);
  EXPECT_THAT(result.err, HasSubstr("queue  number 2  about 3.00 s\n"));
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
                         "--parallel=auto", "--height=64", "--output", Path("out.png")});
  EXPECT_EQ(infer_.init_image(), "init");
  EXPECT_EQ(infer_.mask_image(), "mask");
  EXPECT_EQ(infer_.negative_prompt(), "y");
  EXPECT_EQ(infer_.width(), 512);
  EXPECT_EQ(infer_.height(), 64);
  EXPECT_EQ(infer_.options().denoise(), 0.5);
  EXPECT_EQ(infer_.options().guidance(), 3.5);
  EXPECT_EQ(infer_.options().parallel(), "auto");
  EXPECT_EQ(object["files"], (json{Path("out-0.png"), Path("out-1.png")}));
  EXPECT_EQ(object["previews"], (json{Path("out-preview-001.png"), Path("out-preview-002.png")}));
  EXPECT_EQ(object["model"], "m");
  EXPECT_EQ(FileBytes(Path("out-1.png")), "image1");
  EXPECT_EQ(FileBytes(Path("out-preview-002.png")), "preview2");
}

TEST_F(CtlTest, InferChoosesTheFormatByNameOrTheNameByFormat) {
  ScriptModels();
  ScriptInfer();
  RunJson({"infer", "--prompt=x", "-o", Path("a.jpg"), "--tile_size=256", "--priority=-3"});
  EXPECT_EQ(infer_.image_format(), "jpeg");
  EXPECT_EQ(infer_.tile_size(), 256);
  EXPECT_EQ(infer_.options().priority(), -3);
  EXPECT_EQ(Run({"infer", "--prompt=x", "--priority=11"}).exit_code, 2);
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

}  // namespace
}  // namespace distorch
