// The real distorchctl with a daemon whose answers a test scripts.
#ifndef TESTS_CLIENT_CTL_FIXTURE_H_
#define TESTS_CLIENT_CTL_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/fake_server.h"
#include "tests/client/program.h"

namespace distorch {

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
  nlohmann::json RunJson(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    ProgramResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, testing::IsEmpty());
    nlohmann::json object = nlohmann::json::parse(result.out, nullptr, /*allow_exceptions=*/false);
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
      event.mutable_queue()->set_position(2);
      event.mutable_queue()->set_predicted_seconds(3);
      writer->Write(event);
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

}  // namespace distorch

#endif  // TESTS_CLIENT_CTL_FIXTURE_H_
