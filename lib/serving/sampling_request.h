// From a client's sampling fields to the pipeline's, checked.
#ifndef LIB_SERVING_SAMPLING_REQUEST_H_
#define LIB_SERVING_SAMPLING_REQUEST_H_

#include <vector>

#include "absl/status/statusor.h"
#include "lib/models/diffusion_model.h"
#include "lib/pipeline/sample_latent.h"
#include "lib/serving/daemon_core.h"
#include "lib/serving/infer_spec.h"
#include "lib/serving/observer.h"

namespace distorch {

// INVALID_ARGUMENT naming `field` when the text is longer than a prompt may be.
absl::Status CheckPrompt(std::string_view field, const std::string& text);

// INVALID_ARGUMENT naming the field: steps, denoise, cfg, sampler_name, scheduler, start_step,
// end_step, sigmas.
absl::StatusOr<sampling::SampleArgs> ToSampleArgs(const SamplingOptions& options,
                                                  const std::vector<double>& sigmas);

// Tells `callbacks` (and `observer`, as phase "step") of each step with its time, and with a
// preview every `preview_every` steps (0: never). `format` and `observer` must outlive the result.
pipeline::StepObserver ReportSteps(const InferCallbacks& callbacks, int preview_every,
                                   const models::LatentFormat& format, Observer* observer,
                                   const std::string& family);

}  // namespace distorch

#endif  // LIB_SERVING_SAMPLING_REQUEST_H_
