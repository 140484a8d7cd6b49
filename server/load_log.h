// What the log says of loads and unloads, whatever protocol asked for them.
#ifndef SERVER_LOAD_LOG_H_
#define SERVER_LOAD_LOG_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "lib/serving/load_spec.h"
#include "server/logging.h"
#include "server/reactors.h"

namespace distorch {

// `call` is a UnaryCall or a stream.
template <typename CallPtr>
void LogLoad(const CallPtr& call, const std::string& ckpt_name,
             const absl::StatusOr<LoadResult>& result) {
  if (!result.ok()) {
    call->Log(Logger::Level::kWarning, "load failed",
              {{"ckpt_name", ckpt_name}, {"error", std::string(result.status().message())}});
    return;
  }
  double seconds = 0;
  for (const auto& [phase, time] : result->phase_seconds) seconds += time;
  int64_t bytes = 0;
  for (const ComponentPlacement& component : result->placement) {
    for (const DeviceBytes& device : component.devices) bytes += device.measured_bytes;
  }
  call->Log(Logger::Level::kInfo, "loaded",
            {{"ckpt_name", ckpt_name},
             {"family", result->family},
             {"bytes", bytes},
             {"seconds", seconds}});
}

inline void LogUnload(const UnaryCallPtr& call, const UnloadReceipt& receipt) {
  int64_t bytes = 0;
  for (const auto& [device, freed] : receipt.freed_bytes) bytes += freed;
  call->Log(Logger::Level::kInfo, "unloaded",
            {{"handles", int64_t{receipt.handles_closed}}, {"bytes", bytes}});
}

}  // namespace distorch

#endif  // SERVER_LOAD_LOG_H_
