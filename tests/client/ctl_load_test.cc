// distorchctl plan, load and unload against a scripted daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/ctl_fixture.h"

namespace distorch {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

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

TEST_F(CtlTest, LoadAppliesLorasAndKeepsOnlyTheirHandles) {
  ScriptLoad();
  bool is_open = false;
  server_.models.onListModels = [&](auto*, const auto&, auto* response) {
    if (is_open) response->add_models()->set_handle("clip-1");
    return grpc::Status::OK;
  };
  std::vector<std::string> asked, closed;
  server_.models.onApplyLora = [&](auto*, const auto& request, auto* response) {
    asked.push_back(absl::StrCat(request.model(), " ", request.clip(), " ", request.lora_name(),
                                 " ", request.strength_model(), " ", request.strength_clip()));
    if (request.lora_name() == "missing") return grpc::Status(grpc::StatusCode::NOT_FOUND, "no");
    response->set_model(request.model() + "+");
    response->set_clip(request.clip() + "+");
    return grpc::Status::OK;
  };
  server_.models.onUnload = [&](auto*, const auto& request, auto*) {
    closed.assign(request.handles().begin(), request.handles().end());
    return grpc::Status::OK;
  };
  json object = RunJson({"load", "sd15.safetensors", "--lora=ink:0.5", "--lora", "snow:1:0"});
  EXPECT_THAT(asked, ElementsAre("model-1 clip-1 ink 0.5 0.5", "model-1+ clip-1+ snow 1 0"));
  EXPECT_EQ(object["model"], "model-1++");
  EXPECT_EQ(object["clip"], "clip-1++");
  EXPECT_THAT(closed, ElementsAre("model-1+", "clip-1+", "model-1", "clip-1"));

  // What was open before stays open, …
  is_open = true;
  RunJson({"load", "sd15.safetensors", "--lora=ink:0.5"});
  EXPECT_THAT(closed, ElementsAre("model-1"));
  // … and after an error nothing else is.
  ProgramResult result = Run({"load", "sd15.safetensors", "--lora=missing"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("NOT_FOUND: no"));
  EXPECT_THAT(closed, ElementsAre("model-1"));
}

}  // namespace
}  // namespace distorch
