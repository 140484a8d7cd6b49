// The page that shows what the daemon is doing, and the JSON it is drawn from: /, /api/status,
// /api/blocks?handle=H and /api/image?number=N. All of the page is in the program.
#ifndef SERVER_HTTP_STATUS_PAGE_H_
#define SERVER_HTTP_STATUS_PAGE_H_

#include <functional>
#include <string>
#include <vector>

#include "lib/serving/daemon_core.h"
#include "server/http/api_routes.h"
#include "server/recent_images.h"

namespace distorch {

struct StatusPage {
  std::string version;
  bool can_draw = false;  // whether OpenAI's API, which the prompt box uses, is served
  DaemonCore* core = nullptr;
  const RecentImages* images = nullptr;
  std::function<bool()> draining;
};

// What `page` points to must outlive the routes.
std::vector<HttpRoute> StatusPageRoutes(const ApiRoutes& routes, const StatusPage& page);

}  // namespace distorch

#endif  // SERVER_HTTP_STATUS_PAGE_H_
