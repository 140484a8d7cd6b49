// inference.GRPCInferenceService, the Open Inference Protocol, on top of the core.
#ifndef SERVER_OPEN_INFERENCE_SERVICE_H_
#define SERVER_OPEN_INFERENCE_SERVICE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "lib/serving/daemon_core.h"
#include "proto/open_inference.grpc.pb.h"
#include "server/call.h"
#include "server/methods.h"
#include "server/open_inference_models.h"
#include "server/reactors.h"
#include "server/request_limits.h"
#include "server/worker_pool.h"

namespace distorch {

// Thin: checks, translates, calls the core, translates back. What the core does synchronously runs
// in the pool.
class OpenInferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // The first three must outlive the service's calls.
  OpenInferenceService(DaemonCore* core, CallMonitor* monitor, WorkerPool* pool,
                       const RequestLimits& limits)
      : core_(core), monitor_(monitor), pool_(pool), limits_(limits) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* context,
                                        const inference::ModelConfigRequest* request,
                                        inference::ModelConfigResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerUnaryReactor* ModelStatistics(grpc::CallbackServerContext* context,
                                            const inference::ModelStatisticsRequest* request,
                                            inference::ModelStatisticsResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* context,
                                            const inference::RepositoryIndexRequest* request,
                                            inference::RepositoryIndexResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryModelLoad(
      grpc::CallbackServerContext* context, const inference::RepositoryModelLoadRequest* request,
      inference::RepositoryModelLoadResponse* response) override;
  grpc::ServerUnaryReactor* RepositoryModelUnload(
      grpc::CallbackServerContext* context, const inference::RepositoryModelUnloadRequest* request,
      inference::RepositoryModelUnloadResponse* response) override;

 private:
  // As UnaryCall's, in this service's pool.
  template <typename Work>
  grpc::ServerUnaryReactor* RunInPool(grpc::CallbackServerContext* context, MethodName method,
                                      Work work) {
    return UnaryCall::RunInPool(monitor_, pool_, context, method, std::move(work));
  }
  std::map<std::string, OpenModel> Models() { return OpenModelsOf(core_->ListModels()); }
  // The family of a checkpoint, loaded or not; empty when it has none. NOT_FOUND for an unknown
  // one.
  absl::StatusOr<std::string> Family(const std::string& name, const std::string& version);
  // The handles that a request's model means.
  absl::StatusOr<ModelHandles> Handles(const std::string& name, const std::string& version);

  DaemonCore* const core_;
  CallMonitor* const monitor_;
  WorkerPool* const pool_;
  const RequestLimits limits_;
  OpenLoads loads_;
  OpenStatistics statistics_;
};

}  // namespace distorch

#endif  // SERVER_OPEN_INFERENCE_SERVICE_H_
