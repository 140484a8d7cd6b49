// Between the messages of proto/distorch.proto and the core's plain types.
//
// To the core: every check that can be made without knowing devices, files or handles;
// INVALID_ARGUMENT names the field (dotted, as in the .proto) and what is allowed. Unset fields
// become the defaults documented in the .proto; absent optional fields stay absent. What is over
// the limits is an error that names the field, the limit and its flag. From the core:
// total functions; strings that may come from disk are made valid UTF-8.
#ifndef SERVER_TRANSLATE_H_
#define SERVER_TRANSLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/serving/daemon_core.h"
#include "proto/distorch.pb.h"
#include "server/request_limits.h"

namespace distorch {

absl::StatusOr<LoadSpec> ToLoadSpec(const v1::LoadCheckpointRequest& request);
absl::StatusOr<UnloadSpec> ToUnloadSpec(const v1::UnloadRequest& request);
absl::StatusOr<ApplyLoraSpec> ToApplyLoraSpec(const v1::ApplyLoraRequest& request);
absl::Status CheckClipSkip(const v1::SetClipSkipRequest& request);

absl::StatusOr<EncodeTextSpec> ToEncodeTextSpec(const v1::EncodeTextRequest& request,
                                                const RequestLimits& limits = {});
absl::StatusOr<SampleSpec> ToSampleSpec(const v1::SampleRequest& request,
                                        const RequestLimits& limits = {});
absl::StatusOr<DenoiseSpec> ToDenoiseSpec(const v1::DenoiseRequest& request,
                                          const RequestLimits& limits = {});
absl::StatusOr<DecodeLatentSpec> ToDecodeLatentSpec(const v1::DecodeLatentRequest& request,
                                                    const RequestLimits& limits = {});
absl::StatusOr<EncodeImageSpec> ToEncodeImageSpec(const v1::EncodeImageRequest& request,
                                                  const RequestLimits& limits = {});
absl::StatusOr<InferSpec> ToInferSpec(const v1::InferRequest& request,
                                      const RequestLimits& limits = {});

void ToProto(const std::vector<DeviceInfo>& devices, v1::ListDevicesResponse* out);
void ToProto(const std::vector<CheckpointInfo>& checkpoints, v1::ListCheckpointsResponse* out);
void ToProto(const std::vector<ModelInfo>& models, v1::ListModelsResponse* out);
void ToProto(const std::vector<LinkInfo>& links, v1::ListLinksResponse* out);
void ToProto(const CheckpointPlan& plan, v1::PlanCheckpointResponse* out);
void ToProto(const LoadProgress& progress, v1::LoadCheckpointEvent* out);
void ToProto(const LoadResult& result, v1::LoadCheckpointResponse* out);
void ToProto(const ApplyLoraResult& result, v1::ApplyLoraResponse* out);
void ToProto(const UnloadReceipt& receipt, v1::UnloadResponse* out);

void ToProto(EncodeTextResult result, v1::EncodeTextResponse* out);
void ToProto(const StepProgress& progress, v1::StepProgress* out);
void ToProto(const QueueProgress& progress, v1::QueueProgress* out);
void ToProto(HostTensor denoised, v1::DenoiseResponse* out);
void ToProto(DecodeLatentResult result, v1::DecodeLatentResponse* out);
void ToProto(HostTensor latent, v1::EncodeImageResponse* out);
void ToProto(InferResult result, v1::InferResult* out);

}  // namespace distorch

#endif  // SERVER_TRANSLATE_H_
