// The daemon's log: one event a line on stderr, as text or as JSON objects, with named fields.
#ifndef SERVER_LOGGING_H_
#define SERVER_LOGGING_H_

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace spdlog {
class logger;
}

namespace distorch {

using LogValue = std::variant<std::string, int64_t, double>;
using LogFields = std::vector<std::pair<std::string_view, LogValue>>;

// Thread-safe. A JSON line is {"ts": RFC 3339 with milliseconds, "level": …, "msg": …, fields…}; a
// text line has the same in the same order, fields as key=value. Prompts and images are never given
// to it.
class Logger {
 public:
  enum class Level { kDebug, kInfo, kWarning, kError };

  // `level`: "debug", "info", "warning" or "error"; `format`: "text" or "json" (as the options
  // allow). Writes to stderr, or to `out` (which must outlive the logger).
  Logger(std::string_view level, std::string_view format, std::ostream* out = nullptr);
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  void Log(Level level, std::string_view message, const LogFields& fields = {});
  void Info(std::string_view message, const LogFields& fields = {}) {
    Log(Level::kInfo, message, fields);
  }
  void Warning(std::string_view message, const LogFields& fields = {}) {
    Log(Level::kWarning, message, fields);
  }
  void Error(std::string_view message, const LogFields& fields = {}) {
    Log(Level::kError, message, fields);
  }

 private:
  std::unique_ptr<spdlog::logger> logger_;
  const bool json_;
};

}  // namespace distorch

#endif  // SERVER_LOGGING_H_
