// Requests in JSON, as far as they are read at all.
#ifndef SERVER_HTTP_JSON_BODY_H_
#define SERVER_HTTP_JSON_BODY_H_

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace distorch {

// The object that `text` is. INVALID_ARGUMENT when it is not one, is nested deeper than 16 or has
// more than 10,000 values. Of keys that come twice the last wins.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text);

// Reads the fields of an object; null is as good as absent. The first field of a wrong type or out
// of its range is remembered as an INVALID_ARGUMENT that starts with its name; values read after it
// mean nothing.
class JsonFields {
 public:
  explicit JsonFields(const nlohmann::json& object) : object_(object) {}

  const absl::Status& status() const { return status_; }
  bool Has(const char* name) const;

  std::string Text(const char* name, std::string fallback = "");
  bool Flag(const char* name, bool fallback);
  // Numbers in strings are taken, too: some clients send what their users typed.
  int64_t Integer(const char* name, int64_t fallback, int64_t min, int64_t max);
  double Number(const char* name, double fallback, double min, double max);

  // Remembers that the field is not `allowed`.
  void Refuse(std::string_view name, std::string_view why);

 private:
  const nlohmann::json* Find(const char* name) const;

  const nlohmann::json& object_;
  absl::Status status_;
};

}  // namespace distorch

#endif  // SERVER_HTTP_JSON_BODY_H_
