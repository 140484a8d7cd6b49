// What small calls and waiting clients cost a model that steps: the demo's model samples on one
// thread while ListModels is called at a fixed rate, and while many clients, each over a connection
// of its own, hold a stream that waits in the queue. The clients are in this process and their cost
// is counted with the server's. Prints one JSON object.
#include <grpcpp/grpcpp.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <atomic>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/distorch.grpc.pb.h"
#include "tests/bench/bench_server.h"
#include "tests/support/core_client.h"

namespace distorch {
namespace {

struct Flags {
  int rate = 2000, clients = 1000, runs = 5, steps = 40, size = 256;
};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * values.size()))];
}

// Calls ListModels `rate` times a second from construction to Stop, whether answers come or not.
// A latency is counted from the moment the call was due.
class Caller {
 public:
  Caller(const std::string& address, int rate)
      : stub_(v1::ModelService::NewStub(Connect(address))),
        rate_(rate),
        thread_([this] { Run(); }) {}

  nlohmann::json Stop() {
    stopping_ = true;
    thread_.join();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Caller::AllAnswered));
    return {{"calls_per_second", latencies_.size() / seconds},
            {"errors", errors_},
            {"p50_ms", 1e3 * Percentile(latencies_, 0.5)},
            {"p99_ms", 1e3 * Percentile(latencies_, 0.99)}};
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::ListModelsRequest request;
    v1::ListModelsResponse response;
  };

  void Run() {
    const absl::Duration pause = absl::Seconds(1) / rate_;
    for (absl::Time due = start_; !stopping_; due += pause) {
      absl::SleepFor(due - absl::Now());
      Send(due);
    }
  }

  void Send(absl::Time due) {
    {
      absl::MutexLock lock(&mutex_);
      ++sent_;
    }
    auto call = std::make_shared<Call>();
    stub_->async()->ListModels(&call->context, &call->request, &call->response,
                               [this, call, due](const grpc::Status& status) {
                                 const absl::Duration took = absl::Now() - due;
                                 absl::MutexLock lock(&mutex_);
                                 latencies_.push_back(absl::ToDoubleSeconds(took));
                                 errors_ += status.ok() ? 0 : 1;
                               });
  }

  bool AllAnswered() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return latencies_.size() == sent_;
  }

  const std::unique_ptr<v1::ModelService::Stub> stub_;
  const int rate_;
  const absl::Time start_ = absl::Now();
  std::atomic<bool> stopping_ = false;
  absl::Mutex mutex_;
  size_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<double> latencies_ ABSL_GUARDED_BY(mutex_);
  int errors_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;  // last: it uses the others
};

// A client whose Infer waits in the queue.
class Waiting : public grpc::ClientReadReactor<v1::InferEvent> {
 public:
  Waiting(const std::string& address, const v1::InferRequest& request,
          absl::BlockingCounter* queued, absl::BlockingCounter* gone)
      : stub_(v1::InferenceService::NewStub(Connect(address))), queued_(queued), gone_(gone) {
    stub_->async()->Infer(&context_, &request, this);
    StartRead(&event_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!heard_) queued_->DecrementCount();
    heard_ = true;
    StartRead(&event_);
  }

  void OnDone(const grpc::Status&) override {
    if (!heard_) queued_->DecrementCount();
    gone_->DecrementCount();
  }

 private:
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  grpc::ClientContext context_;
  v1::InferEvent event_;
  bool heard_ = false;
  absl::BlockingCounter* const queued_;
  absl::BlockingCounter* const gone_;
};

class Bench {
 public:
  explicit Bench(const Flags& flags)
      : flags_(flags), server_(Settings(flags)), local_(server_.core()) {
    LoadSpec load;
    load.ckpt_name = "shapes-sd1.safetensors";
    loaded_ = OrDie(local_.Load(load));
    spec_.model = loaded_.model;
    spec_.options.steps = flags.steps;
    const int side = flags.size / 8;
    spec_.latent.shape = {1, 4, side, side};
    spec_.latent.data.assign(static_cast<size_t>(4 * side * side) * sizeof(float), '\0');
    spec_.positive.id = OrDie(local_.EncodeText({loaded_.clip, "a red circle"})).conditioning_id;
    spec_.negative.id = OrDie(local_.EncodeText({loaded_.clip, ""})).conditioning_id;
  }

  nlohmann::json Run() {
    StepSeconds();  // warms up
    std::vector<double> alone, called, slowed;
    nlohmann::json calls;
    for (int i = 0; i < flags_.runs; ++i) {
      alone.push_back(StepSeconds());
      Caller caller(server_.address(), flags_.rate);
      called.push_back(StepSeconds());
      calls = caller.Stop();
      slowed.push_back(called.back() / alone.back() - 1);
    }
    return {{"step_seconds", Median(alone)},
            {"step_seconds_with_calls", Median(called)},
            {"slowed", Median(slowed)},
            {"calls", calls},
            {"waiting_clients", WithClients()}};
  }

 private:
  static CoreOptions Settings(const Flags& flags) {
    CoreOptions options;
    options.threads = 1;
    options.queue_limit = flags.clients + 1;
    return options;
  }

  double StepSeconds() {
    std::vector<double> seconds;
    InferCallbacks callbacks;
    callbacks.progress = [&](const StepProgress& step) { seconds.push_back(step.seconds); };
    OrDie(local_.Sample(spec_, std::make_shared<CancelToken>(), callbacks));
    return Median(seconds);
  }

  // The model steps on, and the clients wait for it.
  nlohmann::json WithClients() {
    SampleSpec endless = spec_;
    endless.options.steps = 10'000;
    const CancelTokenPtr cancel = std::make_shared<CancelToken>();
    absl::Mutex mutex;
    std::vector<double> seconds;
    InferCallbacks callbacks;
    callbacks.progress = [&](const StepProgress& step) {
      absl::MutexLock lock(&mutex);
      seconds.push_back(step.seconds);
    };
    std::thread sampling([&] { local_.Sample(endless, cancel, callbacks).IgnoreError(); });
    const auto steps_from_now = [&](size_t count) {
      absl::MutexLock lock(&mutex);
      seconds.clear();
      const auto enough = [&] { return seconds.size() >= count; };
      mutex.Await(absl::Condition(&enough));
      return Median(seconds);
    };
    steps_from_now(1);

    v1::InferRequest request;
    request.set_model(loaded_.model);
    request.set_clip(loaded_.clip);
    request.set_vae(loaded_.vae);
    request.set_prompt("a red circle");
    absl::BlockingCounter queued(flags_.clients), gone(flags_.clients);
    std::vector<std::unique_ptr<Waiting>> clients;
    for (int i = 0; i < flags_.clients; ++i)
      clients.push_back(std::make_unique<Waiting>(server_.address(), request, &queued, &gone));
    queued.Wait();
    const double idle = steps_from_now(flags_.steps);
    Caller caller(server_.address(), flags_.rate);
    const double busy = steps_from_now(flags_.steps);
    nlohmann::json out = {{"clients", flags_.clients},
                          {"step_seconds", idle},
                          {"step_seconds_with_calls", busy},
                          {"calls", caller.Stop()}};
    for (const auto& client : clients) client->Cancel();
    gone.Wait();
    cancel->Cancel(absl::CancelledError("measured"));
    sampling.join();
    return out;
  }

  const Flags flags_;
  BenchServer server_;
  CoreClient local_;
  LoadResult loaded_;
  SampleSpec spec_;
};

}  // namespace
}  // namespace distorch

int main(int argc, char** argv) {
  distorch::Flags flags;
  CLI::App app("Times a model's steps while clients call and wait");
  app.add_option("--rate", flags.rate, "ListModels a second")->check(CLI::Range(1, 100'000));
  app.add_option("--clients", flags.clients, "that wait")->check(CLI::Range(1, 100'000));
  app.add_option("--runs", flags.runs, "pairs of samplings")->check(CLI::Range(1, 100));
  app.add_option("--steps", flags.steps, "of each sampling")->check(CLI::Range(1, 10'000));
  app.add_option("--size", flags.size, "width and height in pixels")->check(CLI::Range(64, 2048));
  CLI11_PARSE(app, argc, argv);
  std::cout << distorch::Bench(flags).Run().dump() << "\n";
}
