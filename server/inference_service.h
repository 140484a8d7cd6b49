// distorch.v1.InferenceService on top of the core.
#ifndef SERVER_INFERENCE_SERVICE_H_
#define SERVER_INFERENCE_SERVICE_H_

#include "lib/serving/daemon_core.h"
#include "proto/distorch.grpc.pb.h"
#include "server/call.h"
#include "server/recent_images.h"
#include "server/request_limits.h"

namespace distorch {

// Thin: checks, translates, calls the core, translates back.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  // What it is given must outlive the service's calls. Finished pictures are given to `recent`,
  // too.
  InferenceService(DaemonCore* core, CallMonitor* monitor, const RequestLimits& limits,
                   RecentImages* recent)
      : core_(core), monitor_(monitor), limits_(limits), recent_(recent) {}

  grpc::ServerWriteReactor<v1::InferEvent>* Infer(grpc::CallbackServerContext* context,
                                                  const v1::InferRequest* request) override;
  grpc::ServerUnaryReactor* EncodeText(grpc::CallbackServerContext* context,
                                       const v1::EncodeTextRequest* request,
                                       v1::EncodeTextResponse* response) override;
  grpc::ServerWriteReactor<v1::SampleEvent>* Sample(grpc::CallbackServerContext* context,
                                                    const v1::SampleRequest* request) override;
  grpc::ServerUnaryReactor* Denoise(grpc::CallbackServerContext* context,
                                    const v1::DenoiseRequest* request,
                                    v1::DenoiseResponse* response) override;
  grpc::ServerUnaryReactor* DecodeLatent(grpc::CallbackServerContext* context,
                                         const v1::DecodeLatentRequest* request,
                                         v1::DecodeLatentResponse* response) override;
  grpc::ServerUnaryReactor* EncodeImage(grpc::CallbackServerContext* context,
                                        const v1::EncodeImageRequest* request,
                                        v1::EncodeImageResponse* response) override;

 private:
  DaemonCore* const core_;
  CallMonitor* const monitor_;
  const RequestLimits limits_;
  RecentImages* const recent_;
};

}  // namespace distorch

#endif  // SERVER_INFERENCE_SERVICE_H_
