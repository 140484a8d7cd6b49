// What operators' machinery asks for: /metrics, /healthz and /readyz.
#ifndef SERVER_HTTP_OPERATION_ROUTES_H_
#define SERVER_HTTP_OPERATION_ROUTES_H_

#include <functional>
#include <string>
#include <vector>

#include "server/http/http_types.h"

namespace distorch {

// `scrape` makes Prometheus's text. /healthz answers 200 as long as the process can; /readyz 200
// while `unready` returns nothing, else 503 with its reasons, one a line.
std::vector<HttpRoute> OperationRoutes(std::function<std::string()> scrape,
                                       std::function<std::vector<std::string>()> unready);

}  // namespace distorch

#endif  // SERVER_HTTP_OPERATION_ROUTES_H_
