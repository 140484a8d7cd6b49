// What Prometheus reads, over HTTP.
#include <grpcpp/client_context.h>

#include <string>

#include "gmock/gmock.h"
#include "tests/server/http_get.h"
#include "tests/server/server_fixture.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public ServerFixture {
 protected:
  void SetUp() override {
    Options options;
    options.metrics_address = "127.0.0.1:0";
    StartServer(options);
  }
  std::string Scrape() { return HttpGet(server->metrics_port(), "/metrics"); }
};

TEST_F(MetricsTest, EveryFamilyIsDescribedFromTheStart) {
  const std::string text = Scrape();
  EXPECT_THAT(text, HasSubstr("200 OK"));
  const std::pair<const char*, const char*> families[] = {
      {"distorchd_device_memory_bytes", "gauge"},
      {"distorchd_component_bytes", "gauge"},
      {"distorchd_models", "gauge"},
      {"distorchd_requests_total", "counter"},
      {"distorchd_request_seconds", "histogram"},
      {"distorchd_phase_seconds", "histogram"},
      {"distorchd_queue_length", "gauge"},
      {"distorchd_transfer_bytes_total", "counter"},
      {"distorchd_transfer_seconds_total", "counter"},
      {"distorchd_plan_error_ratio", "gauge"},
      {"distorchd_prediction_error_ratio", "gauge"},
      {"distorchd_build_info", "gauge"},
      {"process_start_time_seconds", "gauge"},
  };
  for (const auto& [name, type] : families) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("# HELP ", name, " ")));
    EXPECT_THAT(text, HasSubstr(absl::StrCat("# TYPE ", name, " ", type, "\n")));
  }
  EXPECT_THAT(
      text,
      HasSubstr("distorchd_build_info{cuda=\"13.0\",torch=\"2.11.0\",version=\"1.2.3\"} 1\n"));
}

TEST_F(MetricsTest, GaugesAreTheCoresAtTheTimeOfTheScrape) {
  core.devices = {{"cuda:0", "cuda", "", "GPU-1", 100, 60, 20, 10, 5, 4, 3},
                  {"cpu", "cpu", "", "", 1000, 900, 0, 0, 0, 0, 0}};
  core.models = {
      {.handle = "m1",
       .kind = "model",
       .ckpt_name = "a.safetensors",
       .state = "READY",
       .devices = {{"cuda:0", 8, 8, 1}, {"cpu", 3, 2, 1}},
       .unshared_bytes = {{"cuda:0", 8}, {"cpu", 2}}},
      {.handle = "c1",
       .kind = "clip",
       .ckpt_name = "a.safetensors",
       .state = "READY",
       .devices = {{"cpu", 5, 5, 1}},
       .unshared_bytes = {{"cpu", 5}}},
      {.handle = "c2",
       .kind = "clip",
       .ckpt_name = "a.safetensors",
       .state = "READY",
       .devices = {{"cpu", 6, 6, 1}},
       .unshared_bytes = {{"cpu", 1}}},
      {.handle = "m2", .kind = "model", .ckpt_name = "a.safetensors", .state = "LOADING"}};
  core.links = {{"cpu", "cuda:0", 12e9, 20e-6, true, 15, 0.25, 0.5}, {.from = "disk", .to = "cpu"}};
  const std::string text = Scrape();
  for (const char* line : {
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"total\"} 100\n",
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"free\"} 60\n",
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"weights\"} 20\n",
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"reserved\"} 10\n",
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"staging\"} 5\n",
           "distorchd_device_memory_bytes{device=\"cuda:0\",uuid=\"GPU-1\",kind=\"activations\"} "
           "4\n",
           "distorchd_device_memory_bytes{device=\"cpu\",uuid=\"\",kind=\"free\"} 900\n",
           "distorchd_queue_length{device=\"cuda:0\"} 3\n",
           "distorchd_models{state=\"READY\"} 3\n",
           "distorchd_models{state=\"LOADING\"} 1\n",
           "distorchd_models{state=\"UNLOADING\"} 0\n",
           "distorchd_component_bytes{model=\"a.safetensors\",component=\"unet\",device=\"cuda:0\"}"
           " 8\n",
           "distorchd_component_bytes{model=\"a.safetensors\",component=\"unet\",device=\"cpu\"} "
           "2\n",
           "distorchd_component_bytes{model=\"a.safetensors\",component=\"clip\",device=\"cpu\"} "
           "6\n",
           "distorchd_transfer_bytes_total{from=\"cpu\",to=\"cuda:0\"} 15\n",
           "distorchd_transfer_seconds_total{from=\"cpu\",to=\"cuda:0\",overlapped=\"true\"} 0.5\n",
           "distorchd_transfer_seconds_total{from=\"cpu\",to=\"cuda:0\",overlapped=\"false\"} "
           "0.25\n",
           "distorchd_transfer_bytes_total{from=\"disk\",to=\"cpu\"} 0\n",
           "distorchd_link_bytes_per_second{from=\"cpu\",to=\"cuda:0\"} 12000000000\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("m1"))) << "handles are no labels";
  core.models.clear();
  EXPECT_THAT(Scrape(), Not(HasSubstr("a.safetensors")));
}

TEST_F(MetricsTest, CountsWhatTheCoreObserves) {
  metrics.PhaseDone("step", "sd1", 0.004);
  metrics.PhaseDone("step", "sd1", 0.2);
  metrics.PhaseDone("load_weights", "sd1", 1000);
  metrics.PlanError("sd1", 0.5);
  metrics.PlanError("sd1", 0.0625);
  metrics.PredictionError("sd1", 0.25);
  const std::string text = Scrape();
  for (const char* line : {
           "distorchd_phase_seconds_count{family=\"sd1\",phase=\"step\"} 2\n",
           "distorchd_phase_seconds_bucket{family=\"sd1\",phase=\"step\",le=\"0.001\"} 0\n",
           "distorchd_phase_seconds_bucket{family=\"sd1\",phase=\"step\",le=\"0.005\"} 1\n",
           "distorchd_phase_seconds_bucket{family=\"sd1\",phase=\"load_weights\",le=\"300\"} 0\n",
           "distorchd_phase_seconds_bucket{family=\"sd1\",phase=\"load_weights\",le=\"+Inf\"} 1\n",
           "distorchd_plan_error_ratio{family=\"sd1\"} 0.0625\n",
           "distorchd_prediction_error_ratio{family=\"sd1\"} 0.25\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, CountsCallsByMethodAndCode) {
  v1::ListDevicesResponse devices;
  v1::LoadCheckpointResponse load;
  grpc::ClientContext c1, c2, c3;
  ASSERT_TRUE(models->ListDevices(&c1, {}, &devices).ok());
  ASSERT_TRUE(models->ListDevices(&c2, {}, &devices).ok());
  ASSERT_FALSE(models->LoadCheckpoint(&c3, {}, &load).ok());
  const std::string text = Scrape();
  EXPECT_THAT(text, HasSubstr("distorchd_requests_total{code=\"OK\",method=\"ListDevices\"} 2\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "distorchd_requests_total{code=\"INVALID_ARGUMENT\",method=\"LoadCheckpoint\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("distorchd_request_seconds_count{method=\"ListDevices\"} 2\n"));
}

TEST_F(MetricsTest, NothingAnswersOnceTheServerIsGone) {
  const int port = server->metrics_port();
  server.reset();
  EXPECT_EQ(HttpGet(port, "/metrics"), "");
}

}  // namespace
}  // namespace distorch
