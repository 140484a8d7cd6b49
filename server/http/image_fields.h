// What requests for pictures have in common, whichever API words them.
#ifndef SERVER_HTTP_IMAGE_FIELDS_H_
#define SERVER_HTTP_IMAGE_FIELDS_H_

#include <string>

#include "server/http/json_body.h"
#include "server/request_limits.h"

namespace distorch {

constexpr double kMaxScale = 1000;  // of cfg, as gRPC's
constexpr int kMinImageSide = 16;

// A prompt of at most the server's length.
std::string ReadPrompt(const char* name, const RequestLimits& limits, JsonFields* fields);
// A side of a picture, in pixels; of `name` when it is wrong.
int CheckSide(const char* name, int64_t side, const RequestLimits& limits, JsonFields* fields);
// A seed, or -1 (or absent) for a random one.
uint64_t ReadSeed(JsonFields* fields);

}  // namespace distorch

#endif  // SERVER_HTTP_IMAGE_FIELDS_H_
