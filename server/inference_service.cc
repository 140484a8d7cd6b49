#include "server/inference_service.h"

#include <memory>
#include <string>
#include <utility>

#include "server/reactors.h"
#include "server/translate.h"
#include "server/translate_tensor.h"

namespace distorch {
namespace {

// What a unary call does with the core's result.
template <typename Result, typename Response>
Done<Result> AnswerWith(UnaryCallPtr call, Response* response) {
  return [call = std::move(call), response](absl::StatusOr<Result> result) {
    if (result.ok()) ToProto(*std::move(result), response);
    call->Finish(result.status());
  };
}

template <typename Event>
std::function<void(const StepProgress&)> SendProgress(EventStreamPtr<Event> stream) {
  return [stream = std::move(stream)](const StepProgress& progress) {
    Event event;
    ToProto(progress, event.mutable_progress());
    stream->Send(std::move(event), /*droppable=*/true);
  };
}

template <typename Event>
std::function<void(const QueueProgress&)> SendQueueProgress(EventStreamPtr<Event> stream) {
  return [stream = std::move(stream)](const QueueProgress& progress) {
    Event event;
    ToProto(progress, event.mutable_queue());
    stream->Send(std::move(event), /*droppable=*/true);
  };
}

}  // namespace

grpc::ServerWriteReactor<v1::InferEvent>* InferenceService::Infer(
    grpc::CallbackServerContext* context, const v1::InferRequest* request) {
  using Stream = EventStream<v1::InferEvent>;
  return Stream::Run(monitor_, context, "/distorch.v1.InferenceService/Infer",
                     [&](const std::shared_ptr<Stream>& stream) {
                       absl::StatusOr<InferSpec> spec = ToInferSpec(*request, limits_);
                       if (!spec.ok()) return stream->Finish(spec.status());
                       InferCallbacks callbacks;
                       callbacks.phase = [stream](std::string_view phase) {
                         v1::InferEvent event;
                         event.set_phase(std::string(phase));
                         stream->Send(std::move(event), /*droppable=*/false);
                       };
                       callbacks.progress = SendProgress<v1::InferEvent>(stream);
                       callbacks.queue = SendQueueProgress<v1::InferEvent>(stream);
                       core_->Infer(*spec, stream->cancel(), std::move(callbacks),
                                    [stream, recent = recent_](absl::StatusOr<InferResult> result) {
                                      if (result.ok()) {
                                        recent->Add(*result);
                                        v1::InferEvent event;
                                        ToProto(*std::move(result), event.mutable_result());
                                        stream->Send(std::move(event), /*droppable=*/false);
                                      }
                                      stream->Finish(result.status());
                                    });
                     });
}

grpc::ServerUnaryReactor* InferenceService::EncodeText(grpc::CallbackServerContext* context,
                                                       const v1::EncodeTextRequest* request,
                                                       v1::EncodeTextResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.InferenceService/EncodeText", [&](const UnaryCallPtr& call) {
        absl::StatusOr<EncodeTextSpec> spec = ToEncodeTextSpec(*request, limits_);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->EncodeText(*spec, call->cancel(), AnswerWith<EncodeTextResult>(call, response));
      });
}

grpc::ServerWriteReactor<v1::SampleEvent>* InferenceService::Sample(
    grpc::CallbackServerContext* context, const v1::SampleRequest* request) {
  using Stream = EventStream<v1::SampleEvent>;
  return Stream::Run(monitor_, context, "/distorch.v1.InferenceService/Sample",
                     [&](const std::shared_ptr<Stream>& stream) {
                       absl::StatusOr<SampleSpec> spec = ToSampleSpec(*request, limits_);
                       if (!spec.ok()) return stream->Finish(spec.status());
                       InferCallbacks callbacks;
                       callbacks.progress = SendProgress<v1::SampleEvent>(stream);
                       callbacks.queue = SendQueueProgress<v1::SampleEvent>(stream);
                       core_->Sample(*spec, stream->cancel(), std::move(callbacks),
                                     [stream](absl::StatusOr<HostTensor> latent) {
                                       if (latent.ok()) {
                                         v1::SampleEvent event;
                                         ToProto(*std::move(latent), event.mutable_latent());
                                         stream->Send(std::move(event), /*droppable=*/false);
                                       }
                                       stream->Finish(latent.status());
                                     });
                     });
}

grpc::ServerUnaryReactor* InferenceService::Denoise(grpc::CallbackServerContext* context,
                                                    const v1::DenoiseRequest* request,
                                                    v1::DenoiseResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.InferenceService/Denoise", [&](const UnaryCallPtr& call) {
        absl::StatusOr<DenoiseSpec> spec = ToDenoiseSpec(*request, limits_);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->Denoise(*spec, call->cancel(), AnswerWith<HostTensor>(call, response));
      });
}

grpc::ServerUnaryReactor* InferenceService::DecodeLatent(grpc::CallbackServerContext* context,
                                                         const v1::DecodeLatentRequest* request,
                                                         v1::DecodeLatentResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.InferenceService/DecodeLatent",
      [&](const UnaryCallPtr& call) {
        absl::StatusOr<DecodeLatentSpec> spec = ToDecodeLatentSpec(*request, limits_);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->DecodeLatent(*spec, call->cancel(), AnswerWith<DecodeLatentResult>(call, response));
      });
}

grpc::ServerUnaryReactor* InferenceService::EncodeImage(grpc::CallbackServerContext* context,
                                                        const v1::EncodeImageRequest* request,
                                                        v1::EncodeImageResponse* response) {
  return UnaryCall::Run(
      monitor_, context, "/distorch.v1.InferenceService/EncodeImage",
      [&](const UnaryCallPtr& call) {
        absl::StatusOr<EncodeImageSpec> spec = ToEncodeImageSpec(*request, limits_);
        if (!spec.ok()) return call->Finish(spec.status());
        core_->EncodeImage(*spec, call->cancel(), AnswerWith<HostTensor>(call, response));
      });
}

}  // namespace distorch
