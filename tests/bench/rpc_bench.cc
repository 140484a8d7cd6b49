// What a Sample call costs over gRPC beyond the same call in process: both in turn on one core, the
// demo's small model and a real image's latent, so that the overhead is seen at its largest.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "tests/bench/bench_server.h"
#include "tests/support/core_client.h"

namespace distorch {
namespace {

constexpr int kSize = 128;  // what the demo's model was trained at

template <typename Call>
double Seconds(Call call) {
  const absl::Time start = absl::Now();
  call();
  return absl::ToDoubleSeconds(absl::Now() - start);
}

SampleSpec InProcess(CoreClient& client, int steps) {
  LoadSpec load;
  load.ckpt_name = "shapes-sd1.safetensors";
  const LoadResult loaded = OrDie(client.Load(load));
  SampleSpec spec;
  spec.model = loaded.model;
  spec.options.steps = steps;
  spec.latent.shape = {1, 4, kSize / 8, kSize / 8};
  spec.latent.data.assign(4 * (kSize / 8) * (kSize / 8) * sizeof(float), '\0');
  spec.positive.id = OrDie(client.EncodeText({loaded.clip, "a red circle"})).conditioning_id;
  spec.negative.id = OrDie(client.EncodeText({loaded.clip, ""})).conditioning_id;
  return spec;
}

v1::SampleRequest OverTheWire(const SampleSpec& spec) {
  v1::SampleRequest request;
  request.set_model(spec.model);
  v1::SamplingOptions* options = request.mutable_options();
  options->set_steps(spec.options.steps);
  options->set_cfg(spec.options.cfg);
  options->set_sampler_name(spec.options.sampler_name);
  options->set_scheduler(spec.options.scheduler);
  options->set_denoise(spec.options.denoise);
  request.set_positive_id(spec.positive.id);
  request.set_negative_id(spec.negative.id);
  request.mutable_latent()->set_dtype(v1::FLOAT32);
  for (int64_t size : spec.latent.shape) request.mutable_latent()->add_shape(size);
  request.mutable_latent()->set_data(spec.latent.data);
  return request;
}

void Run(int runs, int steps) {
  BenchServer server({});
  const auto remote = OrDie(client::Client::Connect(server.address()));

  CoreClient local(server.core());
  const SampleSpec spec = InProcess(local, steps);
  const v1::SampleRequest request = OverTheWire(spec);
  std::vector<double> in_process, rpc, overhead;
  for (int i = 0; i <= runs; ++i) {
    const double here = Seconds([&] { OrDie(local.Sample(spec)); });
    const double there = Seconds([&] { OrDie(remote->Sample(request, {})); });
    if (i == 0) continue;  // warm-up
    in_process.push_back(here);
    rpc.push_back(there);
    overhead.push_back(there - here);
  }
  const nlohmann::json out = {{"steps", steps},
                              {"in_process_seconds", Median(in_process)},
                              {"rpc_seconds", Median(rpc)},
                              {"overhead_seconds", Median(overhead)},
                              {"overhead", Median(overhead) / Median(in_process)}};
  std::cout << out.dump() << "\n";
}

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) {
  int runs = 15, steps = 4;
  CLI::App app("Times Sample over gRPC against the same call in process");
  app.add_option("--runs", runs, "timed pairs, after one warm-up")->check(CLI::Range(1, 1000));
  app.add_option("--steps", steps, "sampling steps a call")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  distorch::Run(runs, steps);
}
