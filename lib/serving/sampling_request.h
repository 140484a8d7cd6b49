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
#include "lib/serving/preview_decoders.h"

namespace distorch {

// INVALID_ARGUMENT naming `field` when the text is longer than a prompt may be.
absl::Status CheckPrompt(std::string_view field, const std::string& text);

// INVALID_ARGUMENT naming tile_size unless it is 0 or from 64 to 8192 and a multiple of 8.
absl::Status CheckTileSize(int tile_size);

// INVALID_ARGUMENT naming the field: steps, denoise, cfg, sampler_name, scheduler, start_step,
// end_step, sigmas.
absl::StatusOr<sampling::SampleArgs> ToSampleArgs(const SamplingOptions& options,
                                                  const std::vector<double>& sigmas);

// Tells `callbacks` (and `observer`, as phase "step") of each step with its time, and with a
// preview every `preview_every` steps (0: never). The previews come from the format's tiny decoder
// where `decoders` has it, else from the format's colours. What is pointed at must outlive the
// result.
pipeline::StepObserver ReportSteps(const InferCallbacks& callbacks, int preview_every,
                                   const models::LatentFormat& format, PreviewDecoders* decoders,
                                   Observer* observer, const std::string& family);

}  // namespace distorch

#endif  // LIB_SERVING_SAMPLING_REQUEST_H_
