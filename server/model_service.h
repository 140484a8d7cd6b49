// distorch.v1.ModelService on top of the core.
#ifndef SERVER_MODEL_SERVICE_H_
#define SERVER_MODEL_SERVICE_H_

#include "lib/serving/daemon_core.h"
#include "proto/distorch.grpc.pb.h"
#include "server/call.h"
#include "server/methods.h"
#include "server/reactors.h"
#include "server/worker_pool.h"

namespace distorch {

// Thin: checks, translates, calls the core, translates back. What the core does synchronously runs
// in the pool.
class ModelService final : public v1::ModelService::CallbackService {
 public:
  // All three must outlive the service's calls.
  ModelService(DaemonCore* core, CallMonitor* monitor, WorkerPool* pool)
      : core_(core), monitor_(monitor), pool_(pool) {}

  grpc::ServerUnaryReactor* ListDevices(grpc::CallbackServerContext* context,
                                        const v1::ListDevicesRequest* request,
                                        v1::ListDevicesResponse* response) override;
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override;
  grpc::ServerUnaryReactor* PlanCheckpoint(grpc::CallbackServerContext* context,
                                           const v1::LoadCheckpointRequest* request,
                                           v1::PlanCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* LoadCheckpoint(grpc::CallbackServerContext* context,
                                           const v1::LoadCheckpointRequest* request,
                                           v1::LoadCheckpointResponse* response) override;
  grpc::ServerWriteReactor<v1::LoadCheckpointEvent>* LoadCheckpointStream(
      grpc::CallbackServerContext* context, const v1::LoadCheckpointRequest* request) override;
  grpc::ServerUnaryReactor* ApplyLora(grpc::CallbackServerContext* context,
                                      const v1::ApplyLoraRequest* request,
                                      v1::ApplyLoraResponse* response) override;
  grpc::ServerUnaryReactor* SetClipSkip(grpc::CallbackServerContext* context,
                                        const v1::SetClipSkipRequest* request,
                                        v1::SetClipSkipResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* Unload(grpc::CallbackServerContext* context,
                                   const v1::UnloadRequest* request,
                                   v1::UnloadResponse* response) override;
  grpc::ServerUnaryReactor* ListLinks(grpc::CallbackServerContext* context,
                                      const v1::ListLinksRequest* request,
                                      v1::ListLinksResponse* response) override;

 private:
  // As UnaryCall's, in this service's pool.
  template <typename Work>
  grpc::ServerUnaryReactor* RunInPool(grpc::CallbackServerContext* context, MethodName method,
                                      Work work) {
    return UnaryCall::RunInPool(monitor_, pool_, context, method, std::move(work));
  }

  DaemonCore* const core_;
  CallMonitor* const monitor_;
  WorkerPool* const pool_;
};

}  // namespace distorch

#endif  // SERVER_MODEL_SERVICE_H_
