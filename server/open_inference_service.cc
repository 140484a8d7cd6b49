#include "server/open_inference_service.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/load_log.h"
#include "server/open_inference_request.h"
#include "server/options.h"
#include "server/reactors.h"

namespace distorch {
namespace {

std::string Platform(const std::string& family) {
  return family.empty() ? "distorch" : absl::StrCat("distorch_", family);
}

// A ModelInfer under way: its prompts, one after the other, so that a request has one place in the
// queues. Owned by the callback that the core holds.
class InferRun : public std::enable_shared_from_this<InferRun> {
 public:
  InferRun(DaemonCore* core, OpenStatistics* statistics, UnaryCallPtr call, OpenInfer infer,
           const inference::ModelInferRequest* request, inference::ModelInferResponse* response)
      : core_(core),
        statistics_(statistics),
        call_(std::move(call)),
        infer_(std::move(infer)),
        request_(request),
        response_(response) {}

  void Next() {
    core_->Infer(infer_.SpecOf(infer_.items[results_.size()]), call_->cancel(), {},
                 [run = shared_from_this()](absl::StatusOr<InferResult> result) {
                   run->Took(std::move(result));
                 });
  }

 private:
  void Took(absl::StatusOr<InferResult> result) {
    const std::string& name = request_->model_name();
    if (!result.ok()) {
      statistics_->Failed(name, absl::Now() - start_);
      return call_->Finish(result.status());
    }
    results_.push_back(*std::move(result));
    if (results_.size() < infer_.items.size()) return Next();
    const auto images = static_cast<int64_t>(results_.size()) * infer_.spec.batch_size;
    statistics_->Succeeded(name, results_, images, absl::Now() - start_);
    response_->set_model_name(name);
    response_->set_model_version(std::string(kModelVersion));
    response_->set_id(request_->id());
    ToProto(infer_, results_, response_);
    call_->Finish(absl::OkStatus());
  }

  DaemonCore* const core_;
  OpenStatistics* const statistics_;
  const UnaryCallPtr call_;
  const OpenInfer infer_;
  const inference::ModelInferRequest* const request_;
  inference::ModelInferResponse* const response_;
  const absl::Time start_ = absl::Now();
  std::vector<InferResult> results_;
};

}  // namespace

absl::StatusOr<std::string> OpenInferenceService::Family(const std::string& name,
                                                         const std::string& version) {
  RETURN_IF_ERROR(CheckVersion(version));
  const auto models = Models();
  const auto model = models.find(name);
  if (model != models.end()) return model->second.family;
  LoadSpec spec;
  spec.ckpt_name = name;
  const absl::StatusOr<CheckpointPlan> plan = core_->PlanCheckpoint(spec);
  if (absl::IsNotFound(plan.status())) return plan.status();
  return plan.ok() ? plan->family : "";
}

absl::StatusOr<ModelHandles> OpenInferenceService::Handles(const std::string& name,
                                                           const std::string& version) {
  RETURN_IF_ERROR(CheckVersion(version));
  const auto models = Models();
  const auto model = models.find(name);
  if (model != models.end() && model->second.state == "READY")
    return loads_.Find(name, model->second);
  RETURN_IF_ERROR(Family(name, version).status());
  return absl::FailedPreconditionError(
      absl::StrCat("model ", Quoted(name), " is not loaded: RepositoryModelLoad loads it"));
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerLive(
    grpc::CallbackServerContext* context, const inference::ServerLiveRequest*,
    inference::ServerLiveResponse* response) {
  return UnaryCall::Run(monitor_, context, "/inference.GRPCInferenceService/ServerLive",
                        [&](const UnaryCallPtr& call) {
                          response->set_live(true);
                          call->Finish(absl::OkStatus());
                        });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerReady(
    grpc::CallbackServerContext* context, const inference::ServerReadyRequest*,
    inference::ServerReadyResponse* response) {
  // While the server drains, this call is refused as all are.
  return UnaryCall::Run(monitor_, context, "/inference.GRPCInferenceService/ServerReady",
                        [&](const UnaryCallPtr& call) {
                          response->set_ready(true);
                          call->Finish(absl::OkStatus());
                        });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelReady(
    grpc::CallbackServerContext* context, const inference::ModelReadyRequest* request,
    inference::ModelReadyResponse* response) {
  return RunInPool(context, "/inference.GRPCInferenceService/ModelReady",
                   [this, request, response]() -> absl::Status {
                     RETURN_IF_ERROR(CheckVersion(request->version()));
                     const auto models = Models();
                     const auto model = models.find(request->name());
                     response->set_ready(model != models.end() && model->second.state == "READY");
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerMetadata(
    grpc::CallbackServerContext* context, const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/inference.GRPCInferenceService/ServerMetadata",
      [&](const UnaryCallPtr& call) {
        response->set_name("distorchd");
        response->set_version(std::string(DistorchdVersion()));
        for (const char* extension : {"model_repository", "model_repository(unload_dependents)",
                                      "model_configuration", "parameters", "statistics"})
          response->add_extensions(extension);
        call->Finish(absl::OkStatus());
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  return RunInPool(context, "/inference.GRPCInferenceService/ModelMetadata",
                   [this, request, response]() -> absl::Status {
                     ASSIGN_OR_RETURN(const std::string family,
                                      Family(request->name(), request->version()));
                     response->set_name(request->name());
                     response->add_versions(std::string(kModelVersion));
                     response->set_platform(Platform(family));
                     DescribeTensors(response);
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelConfig(
    grpc::CallbackServerContext* context, const inference::ModelConfigRequest* request,
    inference::ModelConfigResponse* response) {
  return RunInPool(context, "/inference.GRPCInferenceService/ModelConfig",
                   [this, request, response]() -> absl::Status {
                     ASSIGN_OR_RETURN(const std::string family,
                                      Family(request->name(), request->version()));
                     inference::ModelConfig* config = response->mutable_config();
                     config->set_name(request->name());
                     config->set_platform(Platform(family));
                     config->set_backend("distorch");
                     config->mutable_model_transaction_policy();
                     for (auto& [field, value] : loads_.Fields(request->name()))
                       (*config->mutable_parameters())[field].set_string_value(value);
                     DescribeTensors(config);
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelInfer(
    grpc::CallbackServerContext* context, const inference::ModelInferRequest* request,
    inference::ModelInferResponse* response) {
  return UnaryCall::Run(monitor_, context, "/inference.GRPCInferenceService/ModelInfer",
                        [&](const UnaryCallPtr& call) {
                          pool_->Run([this, call, request, response] {
                            absl::StatusOr<ModelHandles> handles =
                                Handles(request->model_name(), request->model_version());
                            if (!handles.ok()) return call->Finish(handles.status());
                            absl::StatusOr<OpenInfer> infer =
                                ToOpenInfer(*request, *handles, limits_);
                            if (!infer.ok()) {
                              statistics_.Failed(request->model_name(), absl::ZeroDuration());
                              return call->Finish(infer.status());
                            }
                            std::make_shared<InferRun>(core_, &statistics_, call, *std::move(infer),
                                                       request, response)
                                ->Next();
                          });
                        });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelStatistics(
    grpc::CallbackServerContext* context, const inference::ModelStatisticsRequest* request,
    inference::ModelStatisticsResponse* response) {
  return RunInPool(context, "/inference.GRPCInferenceService/ModelStatistics",
                   [this, request, response]() -> absl::Status {
                     RETURN_IF_ERROR(CheckVersion(request->version()));
                     const auto models = Models();
                     const std::string& name = request->name();
                     if (!name.empty() && !models.contains(name) && !statistics_.Knows(name))
                       RETURN_IF_ERROR(Family(name, request->version()).status());
                     statistics_.Read(name, models, response);
                     return absl::OkStatus();
                   });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryIndex(
    grpc::CallbackServerContext* context, const inference::RepositoryIndexRequest* request,
    inference::RepositoryIndexResponse* response) {
  return RunInPool(
      context, "/inference.GRPCInferenceService/RepositoryIndex",
      [this, request, response]() -> absl::Status {
        RETURN_IF_ERROR(CheckRepository(request->repository_name()));
        ToProto(request->ready() ? std::vector<CheckpointInfo>() : core_->ListCheckpoints(),
                Models(), request->ready(), response);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelLoad(
    grpc::CallbackServerContext* context, const inference::RepositoryModelLoadRequest* request,
    inference::RepositoryModelLoadResponse*) {
  return UnaryCall::Run(
      monitor_, context, "/inference.GRPCInferenceService/RepositoryModelLoad",
      [&](const UnaryCallPtr& call) {
        absl::StatusOr<OpenLoad> load = ToOpenLoad(*request);
        if (!load.ok()) return call->Finish(load.status());
        const LoadSpec spec = load->spec;
        core_->LoadCheckpoint(
            spec, call->cancel(), nullptr,
            [this, call, load = *std::move(load)](absl::StatusOr<LoadResult> result) mutable {
              LogLoad(call, load.spec.ckpt_name, result);
              if (!result.ok()) return call->Finish(result.status());
              std::vector<std::string> replaced =
                  loads_.Put(load.spec.ckpt_name, *result, std::move(load.fields));
              if (replaced.empty()) return call->Finish(absl::OkStatus());
              // Those in use stay until the model is unloaded.
              core_->Unload(
                  {std::move(replaced), false, false},
                  [call](const absl::StatusOr<UnloadReceipt>&) { call->Finish(absl::OkStatus()); });
            });
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelUnload(
    grpc::CallbackServerContext* context, const inference::RepositoryModelUnloadRequest* request,
    inference::RepositoryModelUnloadResponse*) {
  return UnaryCall::Run(
      monitor_, context, "/inference.GRPCInferenceService/RepositoryModelUnload",
      [&](const UnaryCallPtr& call) {
        const absl::StatusOr<bool> force = ToForce(*request);
        if (!force.ok()) return call->Finish(force.status());
        pool_->Run([this, call, request, force = *force] {
          const std::string& name = request->model_name();
          const auto models = Models();
          const auto model = models.find(name);
          if (model == models.end() || model->second.handles.empty()) {
            const absl::Status known = Family(name, "").status();
            return call->Finish(known.ok() ? absl::FailedPreconditionError(absl::StrCat(
                                                 "model ", Quoted(name), " is not loaded"))
                                           : known);
          }
          core_->Unload({model->second.handles, false, force},
                        [this, call, name](const absl::StatusOr<UnloadReceipt>& receipt) {
                          if (receipt.ok()) {
                            LogUnload(call, *receipt);
                            loads_.Remove(name);
                          }
                          call->Finish(receipt.status());
                        });
        });
      });
}

}  // namespace distorch
