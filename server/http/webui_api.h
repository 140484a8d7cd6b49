// The API of AUTOMATIC1111's WebUI, as far as programs use it to draw: /sdapi/v1/….
#ifndef SERVER_HTTP_WEBUI_API_H_
#define SERVER_HTTP_WEBUI_API_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "server/http/api_routes.h"
#include "server/image_service.h"
#include "server/request_limits.h"

namespace distorch {

// An error in WebUI's shape.
HttpResponse WebuiError(int status, const absl::Status& error);

// `images` must outlive the routes; `loras` lists the adapters' names. A body has at most
// `max_body` bytes.
std::vector<HttpRoute> WebuiRoutes(const ApiRoutes& routes, ImageService* images,
                                   std::function<std::vector<std::string>()> loras,
                                   const RequestLimits& limits, std::size_t max_body);

}  // namespace distorch

#endif  // SERVER_HTTP_WEBUI_API_H_
