#include "server/model_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/status_macros.h"
#include "server/load_log.h"
#include "server/reactors.h"
#include "server/translate.h"

namespace distorch {
namespace {

using LoadStream = EventStream<v1::LoadCheckpointEvent>;

// Lets through the first report of each phase, its last (all bytes done), and about 20 a second
// between. Thread-safe.
class Throttle {
 public:
  bool Admits(const LoadProgress& progress) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = absl::Now();
    const bool complete = progress.bytes_total > 0 && progress.bytes_done >= progress.bytes_total;
    if (progress.phase == phase_ && !complete && now - last_ < kInterval) return false;
    phase_ = progress.phase;
    last_ = now;
    return true;
  }

 private:
  static constexpr absl::Duration kInterval = absl::Milliseconds(50);

  absl::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace

grpc::ServerUnaryReactor* ModelService::ListDevices(grpc::CallbackServerContext* context,
                                                    const v1::ListDevicesRequest*,
                                                    v1::ListDevicesResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/ListDevices", [this, response] {
    ToProto(core_->ListDevices(), response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::ListCheckpoints(grpc::CallbackServerContext* context,
                                                        const v1::ListCheckpointsRequest*,
                                                        v1::ListCheckpointsResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/ListCheckpoints", [this, response] {
    ToProto(core_->ListCheckpoints(), response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::PlanCheckpoint(grpc::CallbackServerContext* context,
                                                       const v1::LoadCheckpointRequest* request,
                                                       v1::PlanCheckpointResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/PlanCheckpoint",
                   [this, request, response]() -> absl::Status {
                     ASSIGN_OR_RETURN(const LoadSpec spec, ToLoadSpec(*request));
                     ASSIGN_OR_RETURN(const CheckpointPlan plan, core_->PlanCheckpoint(spec));
                     ToProto(plan, response);
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* ModelService::LoadCheckpoint(grpc::CallbackServerContext* context,
                                                       const v1::LoadCheckpointRequest* request,
                                                       v1::LoadCheckpointResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.ModelService/LoadCheckpoint", [&](const UnaryCallPtr& call) {
        absl::StatusOr<LoadSpec> spec = ToLoadSpec(*request);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->LoadCheckpoint(
            *spec, call->cancel(), nullptr,
            [call, response, ckpt_name = spec->ckpt_name](absl::StatusOr<LoadResult> result) {
              LogLoad(call, ckpt_name, result);
              if (result.ok()) ToProto(*result, response);
              call->Finish(result.status());
            });
      });
}

grpc::ServerWriteReactor<v1::LoadCheckpointEvent>* ModelService::LoadCheckpointStream(
    grpc::CallbackServerContext* context, const v1::LoadCheckpointRequest* request) {
  return LoadStream::Run(
      monitor_, context, "/distorch.v1.ModelService/LoadCheckpointStream",
      [&](const std::shared_ptr<LoadStream>& stream) {
        absl::StatusOr<LoadSpec> spec = ToLoadSpec(*request);
        if (!spec.ok()) return stream->Finish(spec.status());
        auto progress = [stream,
                         throttle = std::make_shared<Throttle>()](const LoadProgress& progress) {
          if (!throttle->Admits(progress)) return;
          v1::LoadCheckpointEvent event;
          ToProto(progress, &event);
          stream->Send(std::move(event), /*droppable=*/true);
        };
        core_->LoadCheckpoint(
            *spec, stream->cancel(), std::move(progress),
            [stream, ckpt_name = spec->ckpt_name](absl::StatusOr<LoadResult> result) {
              LogLoad(stream, ckpt_name, result);
              if (result.ok()) {
                v1::LoadCheckpointEvent event;
                ToProto(*result, event.mutable_done());
                stream->Send(std::move(event), /*droppable=*/false);
              }
              stream->Finish(result.status());
            });
      });
}

grpc::ServerUnaryReactor* ModelService::ApplyLora(grpc::CallbackServerContext* context,
                                                  const v1::ApplyLoraRequest* request,
                                                  v1::ApplyLoraResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.ModelService/ApplyLora", [&](const UnaryCallPtr& call) {
        absl::StatusOr<ApplyLoraSpec> spec = ToApplyLoraSpec(*request);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->ApplyLora(*spec, call->cancel(),
                         [call, response](absl::StatusOr<ApplyLoraResult> result) {
                           if (result.ok()) ToProto(*result, response);
                           call->Finish(result.status());
                         });
      });
}

grpc::ServerUnaryReactor* ModelService::SetClipSkip(grpc::CallbackServerContext* context,
                                                    const v1::SetClipSkipRequest* request,
                                                    v1::SetClipSkipResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/SetClipSkip",
                   [this, request, response]() -> absl::Status {
                     RETURN_IF_ERROR(CheckClipSkip(*request));
                     ASSIGN_OR_RETURN(
                         *response->mutable_clip(),
                         core_->SetClipSkip(request->clip(), request->stop_at_layer()));
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest*,
                                                   v1::ListModelsResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/ListModels", [this, response] {
    ToProto(core_->ListModels(), response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::Unload(grpc::CallbackServerContext* context,
                                               const v1::UnloadRequest* request,
                                               v1::UnloadResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.ModelService/Unload", [&](const UnaryCallPtr& call) {
        absl::StatusOr<UnloadSpec> spec = ToUnloadSpec(*request);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->Unload(*spec, [call, response](absl::StatusOr<UnloadReceipt> receipt) {
          if (receipt.ok()) {
            LogUnload(call, *receipt);
            ToProto(*receipt, response);
          }
          call->Finish(receipt.status());
        });
      });
}

grpc::ServerUnaryReactor* ModelService::ListLinks(grpc::CallbackServerContext* context,
                                                  const v1::ListLinksRequest*,
                                                  v1::ListLinksResponse* response) {
  return RunInPool(context, "/distorch.v1.ModelService/ListLinks", [this, response] {
    ToProto(core_->Links(), response);
    return absl::OkStatus();
  });
}

}  // namespace distorch
