// What Prometheus is told. The only part of distorchd that knows prometheus-cpp (in metrics.cc).
#ifndef SERVER_METRICS_H_
#define SERVER_METRICS_H_

#include <memory>
#include <string>
#include <string_view>

#include "lib/serving/daemon_core.h"
#include "lib/serving/observer.h"

namespace distorch {

struct BuildInfo {
  std::string version, torch, cuda;
};

// Thread-safe. Counters and histograms are fed by the core (as its Observer) and by the services;
// gauges are made of the core's snapshots at each scrape. Every family is listed, with HELP and
// TYPE, from the first scrape on.
class Metrics : public Observer {
 public:
  explicit Metrics(const BuildInfo& build);
  ~Metrics() override;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void PhaseDone(std::string_view phase, std::string_view family, double seconds) override;
  void PlanError(std::string_view family, double ratio) override;
  void PredictionError(std::string_view family, double ratio) override;
  // An RPC ended. `method` without its service: "Infer"; `code` as "OK", "NOT_FOUND".
  void RequestDone(std::string_view method, std::string_view code, double seconds);

  // All of it in Prometheus's text format, with `core`'s gauges of this moment.
  std::string Scrape(DaemonCore* core) const;

 private:
  struct Families;

  std::unique_ptr<Families> families_;
};

}  // namespace distorch

#endif  // SERVER_METRICS_H_
