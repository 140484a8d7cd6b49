// A server of the benchmark's own process, with the demo checkpoint, on a free port.
#ifndef TESTS_BENCH_BENCH_SERVER_H_
#define TESTS_BENCH_BENCH_SERVER_H_

#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/serving/daemon_core.h"
#include "server/server.h"
#include "tests/bench/bench_support.h"

namespace distorch {

class BenchServer {
 public:
  // `options`' folders and dtype are set here.
  explicit BenchServer(CoreOptions options) : core_(MakeCore(std::move(options))) {
    Options settings;
    settings.listen_address = "127.0.0.1:0";
    settings.metrics_address = "";
    server_ = OrDie(Server::Start(settings, core_.get(), access_.get(), &metrics_, &logger_));
  }

  DaemonCore* core() { return core_.get(); }
  std::string address() const { return absl::StrCat("127.0.0.1:", server_->port()); }

 private:
  static std::unique_ptr<DaemonCore> MakeCore(CoreOptions options) {
    options.checkpoint_dirs = {DISTORCH_DEMO_DIR};
    options.compute_dtype = "fp32";
    return OrDie(DaemonCore::Create(options, nullptr));
  }

  const std::unique_ptr<DaemonCore> core_;
  Logger logger_{"error", "text", &std::cerr};
  const std::unique_ptr<Access> access_ = OrDie(Access::Create("", &logger_));
  Metrics metrics_{{"bench", TorchVersion(), CudaVersion()}};
  std::unique_ptr<Server> server_;
};

}  // namespace distorch

#endif  // TESTS_BENCH_BENCH_SERVER_H_
