#include "server/http/json_body.h"

#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr int kMaxValues = 10'000;

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view text) {
  int values = 0;
  bool too_much = false;
  // What is discarded takes no memory.
  const json::parser_callback_t bounded = [&](int depth, json::parse_event_t, json&) {
    too_much |= depth > kMaxDepth || ++values > 3 * kMaxValues;
    return !too_much;
  };
  json parsed = json::parse(text.begin(), text.end(), bounded, /*allow_exceptions=*/false);
  if (too_much) {
    return absl::InvalidArgumentError(absl::StrCat("body: is nested deeper than ", kMaxDepth,
                                                   " or has more than ", kMaxValues, " values"));
  }
  if (!parsed.is_object()) return absl::InvalidArgumentError("body: is not a JSON object");
  return parsed;
}

const json* JsonFields::Find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::Has(const char* name) const { return Find(name) != nullptr; }

void JsonFields::Refuse(std::string_view name, std::string_view why) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(name, ": ", why));
}

std::string JsonFields::Text(const char* name, std::string fallback) {
  const json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  Refuse(name, "is not a string");
  return fallback;
}

bool JsonFields::Flag(const char* name, bool fallback) {
  const json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  bool flag = fallback;
  if (!value->is_string() || !absl::SimpleAtob(value->get_ref<const std::string&>(), &flag)) {
    Refuse(name, "is not true or false");
  }
  return flag;
}

int64_t JsonFields::Integer(const char* name, int64_t fallback, int64_t min, int64_t max) {
  const double number = Number(name, static_cast<double>(fallback), static_cast<double>(min),
                               static_cast<double>(max));
  if (!Has(name)) return fallback;
  if (std::floor(number) != number) Refuse(name, "is not a whole number");
  // Exactly, where a double is not.
  const json* value = Find(name);
  if (value->is_number_unsigned() && value->get<uint64_t>() <= static_cast<uint64_t>(max)) {
    return static_cast<int64_t>(value->get<uint64_t>());
  }
  return status_.ok() ? static_cast<int64_t>(number) : fallback;
}

double JsonFields::Number(const char* name, double fallback, double min, double max) {
  const json* value = Find(name);
  if (value == nullptr) return fallback;
  double number = 0;
  const bool is_number =
      value->is_number()
          ? (number = value->get<double>(), true)
          : value->is_string() && absl::SimpleAtod(value->get_ref<const std::string&>(), &number);
  if (!is_number) {
    Refuse(name, "is not a number");
  } else if (!(number >= min && number <= max)) {
    Refuse(name, absl::StrCat(number, " is not from ", min, " to ", max));
  } else {
    return number;
  }
  return fallback;
}

}  // namespace distorch
