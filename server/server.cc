#include "server/server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "server/call.h"
#include "server/http_front.h"
#include "server/inference_service.h"
#include "server/model_service.h"
#include "server/open_inference_service.h"
#include "server/systemd.h"
#include "server/tls.h"
#include "server/worker_pool.h"

namespace distorch {
namespace {

constexpr int kPoolThreads = 4;
// After the cancellation of calls, what they may take to notice (a step, at most).
constexpr absl::Duration kCancelPatience = absl::Seconds(10);
// What open health watches keep the listener alive for.
constexpr std::chrono::milliseconds kShutdownGrace{500};
// How often files are looked at that may change while the server runs.
constexpr absl::Duration kReloadInterval = absl::Seconds(1);

void SetServing(grpc::Server* server, bool serving) {
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  health->SetServingStatus(serving);
  health->SetServingStatus(v1::ModelService::service_full_name(), serving);
  health->SetServingStatus(v1::InferenceService::service_full_name(), serving);
  health->SetServingStatus(inference::GRPCInferenceService::service_full_name(), serving);
}

std::shared_ptr<grpc::ServerCredentials> Credentials(const TlsFiles& files) {
  if (!files.enabled()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.cert, files.client_ca,
          static_cast<unsigned>(absl::ToInt64Seconds(kReloadInterval))));
  options.watch_identity_key_cert_pairs();
  if (!files.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

void Configure(const Options& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_receive_mb << 20);
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_kb << 10);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  // Two servers on one port would share its connections at random.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A client that vanished without closing its connection is noticed, and its work cancelled,
  // within these.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // Clients may do the same while a load or a step says nothing for long.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
}

// gRPC's own messages, in the log's format. The hook is the process's, hence the global.
std::atomic<Logger*> grpc_logger = nullptr;

void LogFromGrpc(gpr_log_func_args* args) {
  Logger* logger = grpc_logger.load();
  if (logger == nullptr) return;
  const Logger::Level level = args->severity == GPR_LOG_SEVERITY_ERROR  ? Logger::Level::kError
                              : args->severity == GPR_LOG_SEVERITY_INFO ? Logger::Level::kInfo
                                                                        : Logger::Level::kDebug;
  logger->Log(level, "grpc", {{"text", std::string(args->message)}});
}

class ScopedGrpcLog {
 public:
  explicit ScopedGrpcLog(Logger* logger) {
    grpc_logger = logger;
    gpr_set_log_function(LogFromGrpc);
    google::protobuf::SetLogHandler(nullptr);  // clients could fill the log with what is not UTF-8
  }
  ~ScopedGrpcLog() { grpc_logger = nullptr; }
  ScopedGrpcLog(const ScopedGrpcLog&) = delete;
  ScopedGrpcLog& operator=(const ScopedGrpcLog&) = delete;
};

// Exists while the server serves; whoever started the server on port 0 waits for it.
class PortFile {
 public:
  explicit PortFile(std::string path) : path_(std::move(path)) { Remove(); }
  ~PortFile() { Remove(); }
  PortFile(const PortFile&) = delete;
  PortFile& operator=(const PortFile&) = delete;

  // Readers see all of it or nothing.
  absl::Status Write(const Server& server) {
    if (path_.empty()) return absl::OkStatus();
    nlohmann::json ports = {{"grpc", server.port()}, {"metrics", nullptr}};
    if (server.metrics_port() != 0) ports["metrics"] = server.metrics_port();
    const std::string temporary = path_ + ".tmp";
    errno = 0;
    std::ofstream file(temporary);
    file << ports.dump() << "\n";
    file.close();
    if (file && std::rename(temporary.c_str(), path_.c_str()) == 0) return absl::OkStatus();
    const int error = errno;
    std::remove(temporary.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("port_file: cannot write ", path_));
  }

 private:
  void Remove() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove(path_, ignored);
  }

  const std::string path_;
};

sigset_t ShutdownSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

sigset_t Signals() {
  sigset_t signals = ShutdownSignals();
  sigaddset(&signals, SIGHUP);
  return signals;
}

// What an operator may have overlooked.
void WarnOfOpenDoors(const Options& options, const Access& access, Logger* logger) {
  if (options.tls.enabled() && options.tls.client_ca.empty() && !access.needs_token())
    logger->Warning(
        "anyone who can connect is an admin: neither tokens nor certificates are asked for");
  if (!options.tls.enabled() && access.needs_token())
    logger->Warning("tokens travel in plain text: there is no TLS");
}

// Keeps the tokens fresh until SIGTERM or SIGINT comes, and returns which.
int WaitForShutdown(Access* access, Logger* logger) {
  const sigset_t signals = Signals();
  const timespec interval = absl::ToTimespec(kReloadInterval);
  while (true) {
    const int signal = sigtimedwait(&signals, nullptr, &interval);
    if (signal == SIGTERM || signal == SIGINT) return signal;
    if (signal == SIGHUP) logger->Info("reloading", {{"signal", "HUP"}});
    access->Reload();
  }
}

}  // namespace

// Destroyed from the last to the first: no call outlives the server, no task its pool.
struct Server::Parts {
  Parts(const Options& options, DaemonCore* core, const Access* access, Metrics* metrics,
        Logger* logger)
      : monitor(access, metrics, logger),
        pool(kPoolThreads),
        model_service(core, &monitor, &pool),
        recent_images(options.page_images),
        inference_service(core, &monitor, options.limits, &recent_images),
        open_inference_service(core, &monitor, &pool, options.limits) {}

  CallMonitor monitor;
  WorkerPool pool;
  ModelService model_service;
  RecentImages recent_images;
  InferenceService inference_service;
  OpenInferenceService open_inference_service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<HttpFront> http;
  int port = 0;
  bool drained = false;
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options, DaemonCore* core,
                                                      const Access* access, Metrics* metrics,
                                                      Logger* logger) {
  if (options.tls.enabled()) RETURN_IF_ERROR(CheckTls(options.tls).status());
  auto parts = std::make_unique<Parts>(options, core, access, metrics, logger);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(options, &builder);
  builder.AddListeningPort(options.listen_address, Credentials(options.tls), &parts->port);
  builder.RegisterService(&parts->model_service);
  builder.RegisterService(&parts->inference_service);
  builder.RegisterService(&parts->open_inference_service);
  parts->server = builder.BuildAndStart();
  if (parts->server == nullptr || parts->port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.listen_address,
                     ": is the port in use, or the address not this machine's?"));
  }
  std::unique_ptr<Server> server(new Server(std::move(parts)));
  if (!options.metrics_address.empty()) {
    ASSIGN_OR_RETURN(server->parts_->http,
                     HttpFront::Start(options, core, metrics, &server->parts_->monitor,
                                      &server->parts_->recent_images));
  }
  SetServing(server->parts_->server.get(), true);
  return server;
}

Server::~Server() {
  if (!parts_->drained) Drain(absl::ZeroDuration());
}

int Server::port() const { return parts_->port; }

int Server::metrics_port() const { return parts_->http == nullptr ? 0 : parts_->http->port(); }

void Server::Drain(absl::Duration patience) {
  parts_->drained = true;
  SetServing(parts_->server.get(), false);
  parts_->monitor.StopAdmitting();
  if (!parts_->monitor.WaitUntilIdle(absl::Now() + patience)) {
    parts_->monitor.CancelAll(absl::UnavailableError("the server is shutting down"));
    parts_->monitor.WaitUntilIdle(absl::Now() + kCancelPatience);
  }
  parts_->server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  parts_->http.reset();
}

void BlockSignals() {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

absl::Status Serve(const Options& options, DaemonCore* core, Access* access, Metrics* metrics,
                   Logger* logger) {
  ScopedGrpcLog grpc_log(logger);
  WarnOfOpenDoors(options, *access, logger);
  PortFile port_file(options.port_file);
  ASSIGN_OR_RETURN(std::unique_ptr<Server> server,
                   Server::Start(options, core, access, metrics, logger));
  RETURN_IF_ERROR(port_file.Write(*server));
  ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options.listen_address));
  listen.port = server->port();
  logger->Info("serving", {{"listen_address", FormatHostPort(listen)},
                           {"metrics_port", int64_t{server->metrics_port()}},
                           {"tls", options.tls.enabled() ? "on" : "off"},
                           {"tokens", access->needs_token() ? "on" : "off"},
                           {"version", std::string(DistorchdVersion())}});
  NotifySystemd("READY=1");
  const int signal = WaitForShutdown(access, logger);
  NotifySystemd("STOPPING=1");
  logger->Info("draining",
               {{"signal", std::string(sigabbrev_np(signal))}, {"seconds", options.drain_seconds}});
  const sigset_t signals = ShutdownSignals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  server->Drain(absl::Seconds(options.drain_seconds));
  logger->Info("stopped");
  return absl::OkStatus();
}

}  // namespace distorch
