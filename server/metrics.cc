#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <utility>
#include <vector>

namespace distorch {
namespace {

using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

// From a step on an accelerator to a load from a cold disk.
const Histogram::BucketBoundaries kSecondsBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};

// Names and helps of what is fed as it happens.
constexpr char kRequests[] = "distorchd_requests_total";
constexpr char kRequestsHelp[] = "RPCs finished, by method and gRPC status code.";
constexpr char kRequestSeconds[] = "distorchd_request_seconds";
constexpr char kRequestSecondsHelp[] = "Time from the arrival of an RPC to its status.";
constexpr char kPhaseSeconds[] = "distorchd_phase_seconds";
constexpr char kPhaseSecondsHelp[] =
    "Time of each phase of loads (load_*) and of inferences, by model family.";
constexpr char kPlanError[] = "distorchd_plan_error_ratio";
constexpr char kPlanErrorHelp[] =
    "|measured - planned| / planned bytes of the family's last finished load.";
constexpr char kPredictionError[] = "distorchd_prediction_error_ratio";
constexpr char kPredictionErrorHelp[] =
    "|measured - predicted| / predicted seconds of the steps of the family's last sampling.";

using Labels = std::vector<ClientMetric::Label>;

MetricFamily GaugeFamily(std::string name, std::string help) {
  return {std::move(name), std::move(help), MetricType::Gauge, {}};
}
MetricFamily CounterFamily(std::string name, std::string help) {
  return {std::move(name), std::move(help), MetricType::Counter, {}};
}

void Add(MetricFamily* family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (family->type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family->metric.push_back(std::move(metric));
}

void AppendDevices(const std::vector<DeviceInfo>& devices, std::vector<MetricFamily>* out) {
  MetricFamily memory =
      GaugeFamily("distorchd_device_memory_bytes",
                  "Memory of a device: total, free, and what distorchd holds: "
                  "weights, reserved by loads and requests under way, staging buffers "
                  "and activations.");
  MetricFamily queue = GaugeFamily("distorchd_queue_length", "Requests that wait for the device.");
  for (const DeviceInfo& device : devices) {
    const std::pair<const char*, int64_t> kinds[] = {
        {"total", device.total_bytes},     {"free", device.free_bytes},
        {"weights", device.weights_bytes}, {"reserved", device.reserved_bytes},
        {"staging", device.staging_bytes}, {"activations", device.activation_bytes},
    };
    for (const auto& [kind, bytes] : kinds) {
      Add(&memory, {{"device", device.name}, {"uuid", device.uuid}, {"kind", kind}},
          static_cast<double>(bytes));
    }
    Add(&queue, {{"device", device.name}}, device.queue_length);
  }
  out->push_back(std::move(memory));
  out->push_back(std::move(queue));
}

void AppendModels(const std::vector<ModelInfo>& models, std::vector<MetricFamily>* out) {
  std::map<std::string, int> states = {
      {"STORED", 0}, {"LOADING", 0}, {"READY", 0}, {"UNLOADING", 0}};
  // A checkpoint may be loaded twice with different fields: one series has their sum.
  std::map<std::tuple<std::string, std::string, std::string>, int64_t> bytes;
  for (const ModelInfo& model : models) {
    ++states[model.state];
    const std::string component = model.kind == "model" ? "unet" : model.kind;
    for (const auto& [device, unshared] : model.unshared_bytes)
      bytes[{model.ckpt_name, component, device}] += unshared;
  }
  MetricFamily by_state = GaugeFamily("distorchd_models", "Handles that are open, by state.");
  for (const auto& [state, count] : states) Add(&by_state, {{"state", state}}, count);
  MetricFamily stored = GaugeFamily("distorchd_component_bytes",
                                    "Weights really stored, by checkpoint, component and device.");
  for (const auto& [key, value] : bytes) {
    const auto& [model, component, device] = key;
    Add(&stored, {{"model", model}, {"component", component}, {"device", device}},
        static_cast<double>(value));
  }
  out->push_back(std::move(by_state));
  out->push_back(std::move(stored));
}

void AppendLinks(const std::vector<LinkInfo>& links, std::vector<MetricFamily>* out) {
  MetricFamily bytes =
      CounterFamily("distorchd_transfer_bytes_total",
                    "Weights brought from where they are stored to where they compute.");
  MetricFamily seconds =
      CounterFamily("distorchd_transfer_seconds_total",
                    "Time of these transfers, by whether computation went on meanwhile.");
  MetricFamily speed = GaugeFamily("distorchd_link_bytes_per_second",
                                   "Speed of a link between devices: measured at start, or as "
                                   "--link says.");
  for (const LinkInfo& link : links) {
    const Labels ends = {{"from", link.from}, {"to", link.to}};
    Add(&bytes, ends, static_cast<double>(link.bytes));
    Add(&seconds, {{"from", link.from}, {"to", link.to}, {"overlapped", "false"}},
        link.exposed_seconds);
    Add(&seconds, {{"from", link.from}, {"to", link.to}, {"overlapped", "true"}},
        link.overlapped_seconds);
    if (link.bytes_per_second > 0) Add(&speed, ends, link.bytes_per_second);
  }
  out->push_back(std::move(bytes));
  out->push_back(std::move(seconds));
  out->push_back(std::move(speed));
}

}  // namespace

struct Metrics::Families {
  // Declared first: the families live in it.
  prometheus::Registry registry;
  prometheus::Family<Counter>& requests =
      prometheus::BuildCounter().Name(kRequests).Help(kRequestsHelp).Register(registry);
  prometheus::Family<Histogram>& request_seconds = prometheus::BuildHistogram()
                                                       .Name(kRequestSeconds)
                                                       .Help(kRequestSecondsHelp)
                                                       .Register(registry);
  prometheus::Family<Histogram>& phase_seconds =
      prometheus::BuildHistogram().Name(kPhaseSeconds).Help(kPhaseSecondsHelp).Register(registry);
  prometheus::Family<Gauge>& plan_error =
      prometheus::BuildGauge().Name(kPlanError).Help(kPlanErrorHelp).Register(registry);
  prometheus::Family<Gauge>& prediction_error =
      prometheus::BuildGauge().Name(kPredictionError).Help(kPredictionErrorHelp).Register(registry);
};

Metrics::Metrics(const BuildInfo& build) : families_(std::make_unique<Families>()) {
  prometheus::BuildGauge()
      .Name("distorchd_build_info")
      .Help("Always 1; the labels say what this program is made of.")
      .Register(families_->registry)
      .Add({{"version", build.version}, {"torch", build.torch}, {"cuda", build.cuda}})
      .Set(1);
  // The name and the meaning are those of every Prometheus client library: a change is a restart.
  prometheus::BuildGauge()
      .Name("process_start_time_seconds")
      .Help("When this program started, in seconds since the Unix epoch.")
      .Register(families_->registry)
      .Add({})
      .SetToCurrentTime();
}

Metrics::~Metrics() = default;

void Metrics::PhaseDone(std::string_view phase, std::string_view family, double seconds) {
  families_->phase_seconds
      .Add({{"phase", std::string(phase)}, {"family", std::string(family)}}, kSecondsBuckets)
      .Observe(seconds);
}

void Metrics::PlanError(std::string_view family, double ratio) {
  families_->plan_error.Add({{"family", std::string(family)}}).Set(ratio);
}

void Metrics::PredictionError(std::string_view family, double ratio) {
  families_->prediction_error.Add({{"family", std::string(family)}}).Set(ratio);
}

void Metrics::RequestDone(std::string_view method, std::string_view code, double seconds) {
  families_->requests.Add({{"method", std::string(method)}, {"code", std::string(code)}})
      .Increment();
  families_->request_seconds.Add({{"method", std::string(method)}}, kSecondsBuckets)
      .Observe(seconds);
}

std::string Metrics::Scrape(DaemonCore* core) const {
  // The registry leaves out families without series; they are listed here, so that their names can
  // be found.
  std::map<std::string, MetricFamily> fed = {
      {kRequests, CounterFamily(kRequests, kRequestsHelp)},
      {kRequestSeconds, {kRequestSeconds, kRequestSecondsHelp, MetricType::Histogram, {}}},
      {kPhaseSeconds, {kPhaseSeconds, kPhaseSecondsHelp, MetricType::Histogram, {}}},
      {kPlanError, GaugeFamily(kPlanError, kPlanErrorHelp)},
      {kPredictionError, GaugeFamily(kPredictionError, kPredictionErrorHelp)},
  };
  for (MetricFamily& family : families_->registry.Collect()) fed[family.name] = std::move(family);
  std::vector<MetricFamily> all;
  for (auto& [name, family] : fed) all.push_back(std::move(family));
  AppendDevices(core->ListDevices(), &all);
  AppendModels(core->ListModels(), &all);
  AppendLinks(core->Links(), &all);
  return prometheus::TextSerializer().Serialize(all);
}

}  // namespace distorch
