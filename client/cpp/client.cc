#include "client/cpp/client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/retry_delay.h"
#include "proto/status_details.pb.h"

namespace distorch::client {
namespace {

// gRPC's own retries (gRFC A6). Only for methods that may run twice without anybody noticing.
constexpr char kServiceConfig[] = R"json({
  "methodConfig": [{
    "name": [
      {"service": "distorch.v1.ModelService", "method": "ListDevices"},
      {"service": "distorch.v1.ModelService", "method": "ListCheckpoints"},
      {"service": "distorch.v1.ModelService", "method": "PlanCheckpoint"},
      {"service": "distorch.v1.ModelService", "method": "ListModels"},
      {"service": "distorch.v1.ModelService", "method": "ListLinks"},
      {"service": "distorch.v1.InferenceService", "method": "EncodeText"},
      {"service": "distorch.v1.InferenceService", "method": "Denoise"},
      {"service": "distorch.v1.InferenceService", "method": "DecodeLatent"},
      {"service": "distorch.v1.InferenceService", "method": "EncodeImage"}
    ],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})json";

constexpr int kUnlimited = -1;

// How long to wait that the server says who has turned a call away before it began.
std::optional<absl::Duration> RetryDelay(const grpc::Status& status) {
  details::Status with_details;
  if (status.error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED &&
      status.error_code() != grpc::StatusCode::UNAVAILABLE)
    return std::nullopt;
  if (!with_details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& detail : with_details.details()) {
    details::RetryInfo info;
    if (absl::EndsWith(detail.type_url(), "/google.rpc.RetryInfo") &&
        info.ParseFromString(detail.value()))
      return absl::Seconds(info.retry_delay().seconds()) +
             absl::Nanoseconds(info.retry_delay().nanos());
  }
  return std::nullopt;
}

// The codes of both libraries are the same numbers. `began`: something of the answer has come.
absl::Status FromGrpc(const grpc::Status& status, bool began = false) {
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (began) return result;
  const std::optional<absl::Duration> delay = RetryDelay(status);
  return delay ? RetryAfter(std::move(result), *delay) : result;
}

// The tries of one call.
class Tries {
 public:
  Tries(const CallOptions& options, int attempts)
      : canceller_(options.canceller),
        deadline_(absl::Now() + options.timeout),
        left_(std::max(attempts, 1)) {}

  absl::Time deadline() const { return deadline_; }

  // Waits for the next try after one that ended with `status`; false when there is none.
  bool WaitAfter(const absl::Status& status) {
    const std::optional<absl::Duration> delay = RetryDelayOf(status);
    if (!delay || --left_ == 0) return false;
    // Never earlier, and not all at once.
    const absl::Duration pause = *delay + absl::Milliseconds(absl::Uniform(random_, 0.0, 50.0));
    if (absl::Now() + pause >= deadline_) return false;
    if (canceller_ == nullptr) {
      absl::SleepFor(pause);
    } else {
      canceller_->WaitFor(pause);  // what is cancelled now ends at once when it is sent
    }
    return true;
  }

 private:
  Canceller* const canceller_;
  const absl::Time deadline_;
  int left_;
  absl::BitGen random_;
};

// Reads a stream to its end. `take` hands the result over when the event holds it; any other event
// it may report.
template <typename Result, typename Event>
absl::StatusOr<Result> ReadToResult(grpc::ClientReader<Event>& reader, std::string_view what,
                                    absl::FunctionRef<std::optional<Result>(Event&)> take) {
  std::optional<Result> result;
  Event event;
  bool began = false;
  while (reader.Read(&event)) {
    began = true;
    if (std::optional<Result> taken = take(event)) result = std::move(taken);
  }
  grpc::Status status = reader.Finish();
  if (!status.ok()) return FromGrpc(status, began);
  if (!result)
    return absl::InternalError(absl::StrCat(what, ": the stream ended without a result"));
  return *std::move(result);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        const ConnectOptions& options) {
  if (!absl::StrContains(address, ':')) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': expected HOST:PORT, as 127.0.0.1:50051"));
  }
  // gRPC fails every call whose metadata is not.
  if (!absl::c_all_of(options.checkpoint, absl::ascii_isprint)) {
    return absl::InvalidArgumentError("checkpoint: expected printable ASCII characters");
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    if (options.tls->cert.empty() != options.tls->key.empty()) {
      return absl::InvalidArgumentError("a client certificate needs both cert and key");
    }
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = options.tls->ca;
    ssl.pem_cert_chain = options.tls->cert;
    ssl.pem_private_key = options.tls->key;
    credentials = grpc::SslCredentials(ssl);
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kUnlimited);
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // While a channel waits to connect again, every try fails at once.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  Metadata metadata;
  if (!options.auth_token.empty()) {
    metadata.emplace_back("authorization", absl::StrCat("Bearer ", options.auth_token));
  }
  if (!options.checkpoint.empty())
    metadata.emplace_back("x-distorch-checkpoint", options.checkpoint);
  return std::unique_ptr<Client>(
      new Client(grpc::CreateCustomChannel(address, credentials, arguments), std::move(metadata),
                 options.attempts));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, Metadata metadata, int attempts)
    : metadata_(std::move(metadata)),
      attempts_(attempts),
      models_(v1::ModelService::NewStub(channel)),
      inference_(v1::InferenceService::NewStub(channel)) {}

template <typename Result>
absl::StatusOr<Result> Client::Call(
    const CallOptions& options,
    absl::FunctionRef<absl::StatusOr<Result>(grpc::ClientContext* context)> send) {
  Tries tries(options, attempts_);
  while (true) {
    grpc::ClientContext context;
    const Canceller::Registration registration(options.canceller, &context);
    if (tries.deadline() != absl::InfiniteFuture())
      context.set_deadline(absl::ToChronoTime(tries.deadline()));
    for (const auto& [key, value] : metadata_) context.AddMetadata(key, value);
    absl::StatusOr<Result> result = send(&context);
    if (result.ok() || !tries.WaitAfter(result.status())) return result;
  }
}

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::CallUnary(Stub& stub,
                                           grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                                           const Request& request, const CallOptions& options) {
  return Call<Response>(options, [&](grpc::ClientContext* context) -> absl::StatusOr<Response> {
    Response response;
    const grpc::Status status = (stub.*method)(context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  });
}

absl::StatusOr<v1::ListDevicesResponse> Client::ListDevices(const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::ListDevices, {}, call);
}

absl::StatusOr<v1::ListCheckpointsResponse> Client::ListCheckpoints(const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::ListCheckpoints, {}, call);
}

absl::StatusOr<v1::PlanCheckpointResponse> Client::PlanCheckpoint(
    const v1::LoadCheckpointRequest& request, const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::PlanCheckpoint, request, call);
}

absl::StatusOr<v1::LoadCheckpointResponse> Client::LoadCheckpoint(
    const v1::LoadCheckpointRequest& request, const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::LoadCheckpoint, request, call);
}

absl::StatusOr<v1::LoadCheckpointResponse> Client::LoadCheckpointStream(
    const v1::LoadCheckpointRequest& request,
    absl::FunctionRef<void(const v1::LoadProgress&)> progress, const CallOptions& options) {
  auto take = [&](v1::LoadCheckpointEvent& event) -> std::optional<v1::LoadCheckpointResponse> {
    if (event.has_done()) return std::move(*event.mutable_done());
    if (event.has_progress()) progress(event.progress());
    return std::nullopt;
  };
  return Call<v1::LoadCheckpointResponse>(options, [&](grpc::ClientContext* context) {
    return ReadToResult<v1::LoadCheckpointResponse, v1::LoadCheckpointEvent>(
        *models_->LoadCheckpointStream(context, request), "LoadCheckpointStream", take);
  });
}

absl::StatusOr<v1::ApplyLoraResponse> Client::ApplyLora(const v1::ApplyLoraRequest& request,
                                                        const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::ApplyLora, request, call);
}

absl::StatusOr<v1::SetClipSkipResponse> Client::SetClipSkip(const v1::SetClipSkipRequest& request,
                                                            const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::SetClipSkip, request, call);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::ListModels, {}, call);
}

absl::StatusOr<v1::ListLinksResponse> Client::ListLinks(const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::ListLinks, {}, call);
}

absl::StatusOr<v1::UnloadResponse> Client::Unload(const v1::UnloadRequest& request,
                                                  const CallOptions& call) {
  return CallUnary(*models_, &v1::ModelService::Stub::Unload, request, call);
}

absl::StatusOr<v1::InferResult> Client::Infer(const v1::InferRequest& request,
                                              const SampleCallbacks& callbacks,
                                              const CallOptions& options) {
  auto take = [&](v1::InferEvent& event) -> std::optional<v1::InferResult> {
    if (event.has_result()) return std::move(*event.mutable_result());
    if (event.has_progress() && callbacks.progress) callbacks.progress(event.progress());
    if (event.has_queue() && callbacks.queue) callbacks.queue(event.queue());
    if (event.has_phase() && callbacks.phase) callbacks.phase(event.phase());
    return std::nullopt;
  };
  return Call<v1::InferResult>(options, [&](grpc::ClientContext* context) {
    return ReadToResult<v1::InferResult, v1::InferEvent>(*inference_->Infer(context, request),
                                                         "Infer", take);
  });
}

absl::StatusOr<v1::EncodeTextResponse> Client::EncodeText(const v1::EncodeTextRequest& request,
                                                          const CallOptions& call) {
  return CallUnary(*inference_, &v1::InferenceService::Stub::EncodeText, request, call);
}

absl::StatusOr<v1::Tensor> Client::Sample(const v1::SampleRequest& request,
                                          const SampleCallbacks& callbacks,
                                          const CallOptions& options) {
  auto take = [&](v1::SampleEvent& event) -> std::optional<v1::Tensor> {
    if (event.has_latent()) return std::move(*event.mutable_latent());
    if (event.has_progress() && callbacks.progress) callbacks.progress(event.progress());
    if (event.has_queue() && callbacks.queue) callbacks.queue(event.queue());
    return std::nullopt;
  };
  return Call<v1::Tensor>(options, [&](grpc::ClientContext* context) {
    return ReadToResult<v1::Tensor, v1::SampleEvent>(*inference_->Sample(context, request),
                                                     "Sample", take);
  });
}

absl::StatusOr<v1::DenoiseResponse> Client::Denoise(const v1::DenoiseRequest& request,
                                                    const CallOptions& call) {
  return CallUnary(*inference_, &v1::InferenceService::Stub::Denoise, request, call);
}

absl::StatusOr<v1::DecodeLatentResponse> Client::DecodeLatent(
    const v1::DecodeLatentRequest& request, const CallOptions& call) {
  return CallUnary(*inference_, &v1::InferenceService::Stub::DecodeLatent, request, call);
}

absl::StatusOr<v1::EncodeImageResponse> Client::EncodeImage(const v1::EncodeImageRequest& request,
                                                            const CallOptions& call) {
  return CallUnary(*inference_, &v1::InferenceService::Stub::EncodeImage, request, call);
}

}  // namespace distorch::client
