// The C++ client of a distorchd daemon: one typed, blocking method a call of proto/distorch.proto.
//
//   ASSIGN_OR_RETURN(auto client, client::Client::Connect("127.0.0.1:50051"));
//   v1::LoadCheckpointRequest load;
//   load.set_ckpt_name("sd15.safetensors");
//   ASSIGN_OR_RETURN(auto loaded, client->LoadCheckpoint(load));
//   v1::InferRequest infer;
//   infer.set_model(loaded.model());  // clip, vae, prompt, …
//   ASSIGN_OR_RETURN(auto result, client->Infer(infer, {}));
#ifndef CLIENT_CPP_CLIENT_H_
#define CLIENT_CPP_CLIENT_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/canceller.h"
#include "proto/distorch.grpc.pb.h"

namespace distorch::client {

// PEM texts, not file names.
struct TlsOptions {
  std::string ca;         // who may sign the server's certificate; empty: the system's authorities
  std::string cert, key;  // this client's own, both or neither; for servers that ask for them
};

struct ConnectOptions {
  std::optional<TlsOptions> tls;  // absent: plain text
  std::string auth_token;         // sent with each call as "authorization: Bearer …"; empty: none
  // Sent with each call as "x-distorch-checkpoint", by which a proxy in front of several daemons
  // sends calls that belong together to the same one; printable ASCII; empty: none.
  std::string checkpoint;
  // How often a call is sent at most that the server turns away with a time to wait.
  int attempts = 4;
};

struct CallOptions {
  absl::Duration timeout = absl::InfiniteDuration();  // for the whole call, retries included
  Canceller* canceller = nullptr;                     // not owned; must outlive the call
};

// What a sampling call tells while it runs, on the caller's own thread. Each may be empty.
struct SampleCallbacks {
  std::function<void(std::string_view phase)>
      phase;  // Infer only: "queue", "text", "sample", "decode", …
  std::function<void(const v1::QueueProgress& queue)>
      queue;  // while it waits for a device, whenever its place has changed
  std::function<void(const v1::StepProgress& progress)>
      progress;  // after each step; with a preview when asked for
};

// Thread-safe; calls run at the same time over one connection, which is made again when it breaks.
//
// Errors keep the code and the message the server sent. The client's own: UNAVAILABLE when no
// daemon answers, DEADLINE_EXCEEDED after CallOptions::timeout, CANCELLED through a Canceller,
// INTERNAL when a stream ends well but without its result. Retries: calls that change nothing on
// the server and answer once are tried up to four times, with back-off, while the answer is
// UNAVAILABLE. Any call is sent again that the server turned away before it began with the time to
// wait (google.rpc.RetryInfo: a full queue), after that time and as far as the timeout allows;
// where it is given up, RetryDelayOf(status) of lib/base/retry_delay.h is that time. Sizes: answers
// of any size are taken; what may be sent is for the server to limit.
class Client {
 public:
  // `address` is HOST:PORT (or any target gRPC knows, as unix:PATH). HTTP proxies of the
  // environment are not used. Opens nothing yet: a daemon that cannot be reached is the first
  // call's UNAVAILABLE. INVALID_ARGUMENT for an address without a port, half a client
  // certificate, or a checkpoint that cannot be sent.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address,
                                                         const ConnectOptions& options = {});

  absl::StatusOr<v1::ListDevicesResponse> ListDevices(const CallOptions& call = {});
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(const CallOptions& call = {});
  absl::StatusOr<v1::PlanCheckpointResponse> PlanCheckpoint(
      const v1::LoadCheckpointRequest& request, const CallOptions& call = {});
  absl::StatusOr<v1::LoadCheckpointResponse> LoadCheckpoint(
      const v1::LoadCheckpointRequest& request, const CallOptions& call = {});
  // As LoadCheckpoint; `progress` is called on this thread as the weights arrive.
  absl::StatusOr<v1::LoadCheckpointResponse> LoadCheckpointStream(
      const v1::LoadCheckpointRequest& request,
      absl::FunctionRef<void(const v1::LoadProgress&)> progress, const CallOptions& call = {});
  absl::StatusOr<v1::ApplyLoraResponse> ApplyLora(const v1::ApplyLoraRequest& request,
                                                  const CallOptions& call = {});
  absl::StatusOr<v1::SetClipSkipResponse> SetClipSkip(const v1::SetClipSkipRequest& request,
                                                      const CallOptions& call = {});
  absl::StatusOr<v1::ListModelsResponse> ListModels(const CallOptions& call = {});
  absl::StatusOr<v1::ListLinksResponse> ListLinks(const CallOptions& call = {});
  absl::StatusOr<v1::UnloadResponse> Unload(const v1::UnloadRequest& request,
                                            const CallOptions& call = {});

  absl::StatusOr<v1::InferResult> Infer(const v1::InferRequest& request,
                                        const SampleCallbacks& callbacks,
                                        const CallOptions& call = {});
  absl::StatusOr<v1::EncodeTextResponse> EncodeText(const v1::EncodeTextRequest& request,
                                                    const CallOptions& call = {});
  // The sampled latent.
  absl::StatusOr<v1::Tensor> Sample(const v1::SampleRequest& request,
                                    const SampleCallbacks& callbacks, const CallOptions& call = {});
  absl::StatusOr<v1::DenoiseResponse> Denoise(const v1::DenoiseRequest& request,
                                              const CallOptions& call = {});
  absl::StatusOr<v1::DecodeLatentResponse> DecodeLatent(const v1::DecodeLatentRequest& request,
                                                        const CallOptions& call = {});
  absl::StatusOr<v1::EncodeImageResponse> EncodeImage(const v1::EncodeImageRequest& request,
                                                      const CallOptions& call = {});

 private:
  using Metadata = std::vector<std::pair<std::string, std::string>>;

  Client(std::shared_ptr<grpc::Channel> channel, Metadata metadata, int attempts);

  // Sends a call, as often as it takes.
  template <typename Result>
  absl::StatusOr<Result> Call(
      const CallOptions& options,
      absl::FunctionRef<absl::StatusOr<Result>(grpc::ClientContext* context)> send);
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> CallUnary(Stub& stub,
                                     grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*),
                                     const Request& request, const CallOptions& options);

  const Metadata metadata_;  // sent with each call
  const int attempts_;
  const std::unique_ptr<v1::ModelService::Stub> models_;
  const std::unique_ptr<v1::InferenceService::Stub> inference_;
};

}  // namespace distorch::client

#endif  // CLIENT_CPP_CLIENT_H_
