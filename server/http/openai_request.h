// OpenAI's requests for pictures, as the core takes them. Free of what carries them.
#ifndef SERVER_HTTP_OPENAI_REQUEST_H_
#define SERVER_HTTP_OPENAI_REQUEST_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/http/http_types.h"
#include "server/image_service.h"
#include "server/request_limits.h"

namespace distorch {

struct OpenaiRequest {
  ImageRequest image;
  bool stream = false;
};

// The body of /v1/images/generations. Beside OpenAI's fields: negative_prompt, steps, cfg, sampler,
// scheduler, seed, preview_every, and the handles clip and vae. What only changes their service
// (user, moderation, quality, …) is ignored. INVALID_ARGUMENT starts with the field's name.
absl::StatusOr<OpenaiRequest> ReadGeneration(std::string_view body, const RequestLimits& limits);

// The form of /v1/images/edits: `image`, `mask` (transparent where to repaint) and the same fields
// as text, and denoise: 1 with a mask by default, else 0.75.
absl::StatusOr<OpenaiRequest> ReadEdit(const std::vector<HttpFormPart>& form,
                                       const RequestLimits& limits);

}  // namespace distorch

#endif  // SERVER_HTTP_OPENAI_REQUEST_H_
