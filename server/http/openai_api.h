// OpenAI's API for pictures: /v1/models and /v1/models/NAME, /v1/images/generations and
// /v1/images/edits, streamed or not.
#ifndef SERVER_HTTP_OPENAI_API_H_
#define SERVER_HTTP_OPENAI_API_H_

#include <cstddef>
#include <vector>

#include "server/http/api_routes.h"
#include "server/image_service.h"
#include "server/request_limits.h"

namespace distorch {

// An error in OpenAI's shape.
HttpResponse OpenaiError(int status, const absl::Status& error);

// `images` must outlive the routes. A body has at most `max_body` bytes.
std::vector<HttpRoute> OpenaiRoutes(const ApiRoutes& routes, ImageService* images,
                                    const RequestLimits& limits, std::size_t max_body);

}  // namespace distorch

#endif  // SERVER_HTTP_OPENAI_API_H_
