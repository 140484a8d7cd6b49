// WebUI's requests for pictures (AUTOMATIC1111's /sdapi/v1), as the core takes them. Free of what
// carries them.
#ifndef SERVER_HTTP_WEBUI_REQUEST_H_
#define SERVER_HTTP_WEBUI_REQUEST_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/image_service.h"
#include "server/request_limits.h"

namespace distorch {

struct WebuiRequest {
  ImageRequest image;   // the prompt without its adapters, which are named as there
  std::string prompt;   // with them
  int iterations = 1;   // n_iter: runs one after the other, with seeds that go on
  nlohmann::json echo;  // what was sent, but for pictures
};

// The body of /sdapi/v1/txt2img, or, with `from_image`, of /sdapi/v1/img2img. Fields that ask for
// what is not there (hires. fix, scripts, face restoration, …) are refused, unknown ones ignored.
// INVALID_ARGUMENT starts with the field's name.
absl::StatusOr<WebuiRequest> ReadWebui(std::string_view body, bool from_image,
                                       const RequestLimits& limits);

}  // namespace distorch

#endif  // SERVER_HTTP_WEBUI_REQUEST_H_
