// The half of open_inference_request.h that is about the repository.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_context.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/open_inference_fields.h"
#include "server/open_inference_request.h"
#include "server/translate.h"

namespace distorch {
namespace {

using inference::ModelRepositoryParameter;
using nlohmann::json;

constexpr std::size_t kMaxConfig = 64 << 10;

absl::Status Bad(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", what));
}

absl::Status SetFromJson(const std::string& name, const json& value,
                         v1::LoadCheckpointRequest* out) {
  if (value.is_boolean()) return SetLoadField(name, value.get<bool>(), out);
  if (value.is_number_unsigned()) return SetLoadField(name, value.get<uint64_t>(), out);
  if (value.is_number_integer()) return SetLoadField(name, value.get<int64_t>(), out);
  if (value.is_number_float()) return SetLoadField(name, value.get<double>(), out);
  if (value.is_string()) return SetLoadField(name, value.get<std::string>(), out);
  if (value.is_object() && value.size() == 1 && value.contains("string_value") &&
      value["string_value"].is_string())
    return SetLoadField(name, value["string_value"].get<std::string>(), out);
  return Bad(Quoted(name), "is no number, string, true or false, nor {\"string_value\": \"…\"}");
}

absl::Status ReadConfig(const std::string& text, const std::string& model_name,
                        v1::LoadCheckpointRequest* out) {
  if (text.size() > kMaxConfig)
    return absl::InvalidArgumentError(
        absl::StrCat("has ", text.size(), " bytes; allowed: up to ", kMaxConfig));
  const json config = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return absl::InvalidArgumentError("is no object of JSON");
  for (const auto& [key, value] : config.items()) {
    if (key == "parameters") {
      if (!value.is_object()) return Bad(key, "is no object");
      for (const auto& [name, parameter] : value.items())
        RETURN_IF_ERROR(SetFromJson(name, parameter, out));
    } else if (key == "name") {
      if (value != model_name) return Bad(key, "is not the model's");
    } else if (inference::ModelConfig::descriptor()->FindFieldByName(key) == nullptr) {
      RETURN_IF_ERROR(SetFromJson(key, value, out));
    }  // what else ModelConfig answered may be sent back, and changes nothing
  }
  return absl::OkStatus();
}

absl::Status SetParameter(const std::string& name, const ModelRepositoryParameter& parameter,
                          const std::string& model_name, v1::LoadCheckpointRequest* out) {
  switch (parameter.parameter_choice_case()) {
    case ModelRepositoryParameter::kBoolParam:
      return SetLoadField(name, parameter.bool_param(), out);
    case ModelRepositoryParameter::kInt64Param:
      return SetLoadField(name, parameter.int64_param(), out);
    case ModelRepositoryParameter::kStringParam:
      if (name != "config") return SetLoadField(name, parameter.string_param(), out);
      return Within("config", ReadConfig(parameter.string_param(), model_name, out));
    case ModelRepositoryParameter::kBytesParam:
      return Bad(Quoted(name), "files are not taken: checkpoints come from the server's folders");
    default:
      return Bad(Quoted(name), "has no value");
  }
}

std::map<std::string, std::string> GivenFields(const v1::LoadCheckpointRequest& request) {
  using google::protobuf::FieldDescriptor;
  std::vector<const FieldDescriptor*> set;
  request.GetReflection()->ListFields(request, &set);
  std::map<std::string, std::string> out;
  for (const FieldDescriptor* field : set) {
    if (field->name() == "ckpt_name") continue;
    std::string& text = out[field->name()];
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      text = request.GetReflection()->GetString(request, field);
    } else {
      google::protobuf::TextFormat::PrintFieldValueToString(request, field, -1, &text);
    }
  }
  return out;
}

}  // namespace

absl::Status CheckRepository(const std::string& repository_name) {
  if (repository_name.empty() || repository_name == "default") return absl::OkStatus();
  return Bad("repository_name",
             absl::StrCat(Quoted(repository_name), " is not \"default\", nor empty"));
}

absl::StatusOr<OpenLoad> ToOpenLoad(const inference::RepositoryModelLoadRequest& in) {
  RETURN_IF_ERROR(CheckRepository(in.repository_name()));
  if (in.model_name().empty())
    return Bad("model_name", "is required: a name that RepositoryIndex returns");
  v1::LoadCheckpointRequest request;
  request.set_ckpt_name(in.model_name());
  for (const auto& [name, parameter] : in.parameters())
    RETURN_IF_ERROR(SetParameter(name, parameter, in.model_name(), &request));
  OpenLoad out;
  ASSIGN_OR_RETURN(out.spec, ToLoadSpec(request));
  out.fields = GivenFields(request);
  return out;
}

absl::StatusOr<bool> ToForce(const inference::RepositoryModelUnloadRequest& in) {
  RETURN_IF_ERROR(CheckRepository(in.repository_name()));
  bool force = false;
  for (const auto& [name, parameter] : in.parameters()) {
    if (name != "force" && name != "unload_dependents")
      return Bad(Quoted(name), "is not one of force, unload_dependents");
    if (parameter.parameter_choice_case() != ModelRepositoryParameter::kBoolParam)
      return Bad(name, "is not true or false");
    if (name == "force") force = parameter.bool_param();
  }
  return force;
}

}  // namespace distorch
