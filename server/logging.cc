#include "server/logging.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace distorch {
namespace {

spdlog::level::level_enum ToSpdlog(Logger::Level level) {
  switch (level) {
    case Logger::Level::kDebug:
      return spdlog::level::debug;
    case Logger::Level::kInfo:
      return spdlog::level::info;
    case Logger::Level::kWarning:
      return spdlog::level::warn;
    case Logger::Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

nlohmann::ordered_json ToJson(const LogValue& value) {
  return std::visit([](const auto& v) { return nlohmann::ordered_json(v); }, value);
}

std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// `"msg":…,"field":…` without the braces: the sink's pattern puts time and level before them.
std::string JsonPayload(std::string_view message, const LogFields& fields) {
  nlohmann::ordered_json line = {{"msg", message}};
  for (const auto& [key, value] : fields) line[std::string(key)] = ToJson(value);
  const std::string text = Dump(line);
  return text.substr(1, text.size() - 2);
}

std::string TextPayload(std::string_view message, const LogFields& fields) {
  std::string line(message);
  for (const auto& [key, value] : fields) {
    const double* number = std::get_if<double>(&value);
    absl::StrAppend(&line, " ", key, "=",
                    number != nullptr ? absl::StrFormat("%.6g", *number) : Dump(ToJson(value)));
  }
  return line;
}

}  // namespace

Logger::Logger(std::string_view level, std::string_view format, std::ostream* out)
    : json_(format == "json") {
  spdlog::sink_ptr sink;
  if (out != nullptr) {
    sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(*out, /*force_flush=*/true);
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  logger_ = std::make_unique<spdlog::logger>("distorchd", std::move(sink));
  logger_->set_level(spdlog::level::from_str(std::string(level)));
  logger_->set_pattern(json_ ? R"({"ts":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})"
                             : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
}

Logger::~Logger() = default;

void Logger::Log(Level level, std::string_view message, const LogFields& fields) {
  if (!logger_->should_log(ToSpdlog(level))) return;
  const std::string payload = json_ ? JsonPayload(message, fields) : TextPayload(message, fields);
  logger_->log(ToSpdlog(level), spdlog::string_view_t(payload));
}

}  // namespace distorch
