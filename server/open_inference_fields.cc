#include "server/open_inference_fields.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Fields = std::vector<const FieldDescriptor*>;

absl::Status Bad(std::string_view name, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", what));
}

bool IsOption(const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT64:
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_STRING:
      return !field->is_repeated();
    default:
      return false;
  }
}

// The fields of `type` that hold one value, but those in `but`.
void AddFields(const Descriptor* type, const std::vector<std::string_view>& but, Fields* out) {
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    if (IsOption(field) && !absl::c_linear_search(but, field->name())) out->push_back(field);
  }
}

const Fields& InferDescriptors() {
  static const Fields* const fields = [] {
    auto* all = new Fields();
    // The handles follow from the model's name, and previews have no place in one response.
    AddFields(v1::InferRequest::descriptor(), {"model", "clip", "vae", "preview_every"}, all);
    AddFields(v1::SamplingOptions::descriptor(), {}, all);
    return all;
  }();
  return *fields;
}

const Fields& LoadDescriptors() {
  static const Fields* const fields = [] {
    auto* all = new Fields();
    AddFields(v1::LoadCheckpointRequest::descriptor(), {"ckpt_name"}, all);
    return all;
  }();
  return *fields;
}

OpenField Describe(const FieldDescriptor* field) {
  const std::string_view name = field->name();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return {name, "BOOL", inference::TYPE_BOOL};
    case FieldDescriptor::CPPTYPE_INT32:
      return {name, "INT32", inference::TYPE_INT32};
    case FieldDescriptor::CPPTYPE_INT64:
      return {name, "INT64", inference::TYPE_INT64};
    case FieldDescriptor::CPPTYPE_UINT64:
      return {name, "UINT64", inference::TYPE_UINT64};
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return {name, "FP64", inference::TYPE_FP64};
    default:
      return {name, "BYTES", inference::TYPE_STRING};
  }
}

std::vector<OpenField> DescribeAll(const Fields& fields) {
  std::vector<OpenField> out;
  for (const FieldDescriptor* field : fields) out.push_back(Describe(field));
  return out;
}

std::string ToText(const FieldValue& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const std::string* text = std::get_if<std::string>(&value)) return Quoted(*text);
  return std::visit(
      [](const auto& number) -> std::string {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(number)>>) {
          return absl::StrCat(number);
        } else {
          return "";
        }
      },
      value);
}

// nullopt: the value says no such thing.
template <typename T>
std::optional<T> To(const FieldValue& value);

template <>
std::optional<bool> To(const FieldValue& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  const std::string* text = std::get_if<std::string>(&value);
  if (text == nullptr || (*text != "true" && *text != "false")) return std::nullopt;
  return *text == "true";
}

template <typename Integer>
std::optional<Integer> ToInteger(const FieldValue& value) {
  Integer parsed;
  if (const int64_t* number = std::get_if<int64_t>(&value)) {
    if (std::in_range<Integer>(*number)) return static_cast<Integer>(*number);
  } else if (const uint64_t* number = std::get_if<uint64_t>(&value)) {
    if (std::in_range<Integer>(*number)) return static_cast<Integer>(*number);
  } else if (const std::string* text = std::get_if<std::string>(&value)) {
    if (absl::SimpleAtoi(*text, &parsed)) return parsed;
  }
  return std::nullopt;
}

template <>
std::optional<int32_t> To(const FieldValue& value) {
  return ToInteger<int32_t>(value);
}
template <>
std::optional<int64_t> To(const FieldValue& value) {
  return ToInteger<int64_t>(value);
}
template <>
std::optional<uint64_t> To(const FieldValue& value) {
  return ToInteger<uint64_t>(value);
}

template <>
std::optional<double> To(const FieldValue& value) {
  double number = 0;
  if (const double* real = std::get_if<double>(&value)) {
    number = *real;
  } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const uint64_t* integer = std::get_if<uint64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const std::string* text = std::get_if<std::string>(&value);
             text == nullptr || !absl::SimpleAtod(*text, &number)) {
    return std::nullopt;
  }
  if (!std::isfinite(number)) return std::nullopt;
  return number;
}

template <typename T>
absl::Status SetAs(const FieldDescriptor* field, const FieldValue& value, Message* message,
                   void (google::protobuf::Reflection::*set)(Message*, const FieldDescriptor*, T)
                       const,
                   std::string_view what) {
  const std::optional<T> converted = To<T>(value);
  if (!converted.has_value())
    return Bad(field->name(), absl::StrCat(ToText(value), " is not ", what));
  (message->GetReflection()->*set)(message, field, *converted);
  return absl::OkStatus();
}

absl::Status SetText(const FieldDescriptor* field, const FieldValue& value, Message* message) {
  const std::string* text = std::get_if<std::string>(&value);
  if (text == nullptr)
    return Bad(field->name(), absl::StrCat(ToText(value), " is not BYTES, or a string"));
  if (field->type() == FieldDescriptor::TYPE_STRING && Utf8PrefixLength(*text) != text->size())
    return Bad(field->name(), "is not UTF-8");
  message->GetReflection()->SetString(message, field, *text);
  return absl::OkStatus();
}

absl::Status Set(const FieldDescriptor* field, const FieldValue& value, Message* message) {
  using google::protobuf::Reflection;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return SetAs<bool>(field, value, message, &Reflection::SetBool, "true or false");
    case FieldDescriptor::CPPTYPE_INT32:
      return SetAs<int32_t>(field, value, message, &Reflection::SetInt32, "an integer of 32 bits");
    case FieldDescriptor::CPPTYPE_INT64:
      return SetAs<int64_t>(field, value, message, &Reflection::SetInt64, "an integer of 64 bits");
    case FieldDescriptor::CPPTYPE_UINT64:
      return SetAs<uint64_t>(field, value, message, &Reflection::SetUInt64,
                             "an integer from 0 to 18446744073709551615");
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return SetAs<double>(field, value, message, &Reflection::SetDouble, "a finite number");
    default:
      return SetText(field, value, message);
  }
}

absl::StatusOr<const FieldDescriptor*> Find(const Fields& fields, std::string_view name) {
  const auto it = absl::c_find_if(fields, [&](const auto* field) { return field->name() == name; });
  if (it != fields.end()) return *it;
  return Bad(Quoted(name),
             absl::StrCat("is not one of ", absl::StrJoin(fields, ", ", [](auto* out, auto* field) {
                            out->append(field->name());
                          })));
}

}  // namespace

const std::vector<OpenField>& InferFields() {
  static const auto* const fields = new std::vector(DescribeAll(InferDescriptors()));
  return *fields;
}

const std::vector<OpenField>& LoadFields() {
  static const auto* const fields = new std::vector(DescribeAll(LoadDescriptors()));
  return *fields;
}

absl::Status SetInferField(std::string_view name, const FieldValue& value,
                           v1::InferRequest* request) {
  ASSIGN_OR_RETURN(const FieldDescriptor* field, Find(InferDescriptors(), name));
  if (field->containing_type() == v1::SamplingOptions::descriptor())
    return Set(field, value, request->mutable_options());
  return Set(field, value, request);
}

absl::Status SetLoadField(std::string_view name, const FieldValue& value,
                          v1::LoadCheckpointRequest* request) {
  ASSIGN_OR_RETURN(const FieldDescriptor* field, Find(LoadDescriptors(), name));
  return Set(field, value, request);
}

}  // namespace distorch
