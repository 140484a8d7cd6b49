// What systemd is told by a service of Type=notify (sd_notify(3)'s protocol, spoken directly).
#ifndef SERVER_SYSTEMD_H_
#define SERVER_SYSTEMD_H_

#include <string_view>

namespace distorch {

// Sends `state`, as "READY=1" or "STOPPING=1", to the socket named by NOTIFY_SOCKET. Does nothing
// when that is not set; a socket that does not answer is ignored, as systemd's own clients do.
void NotifySystemd(std::string_view state);

}  // namespace distorch

#endif  // SERVER_SYSTEMD_H_
