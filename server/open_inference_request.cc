#include "server/open_inference_request.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"
#include "server/open_inference_fields.h"
#include "server/open_inference_tensor.h"
#include "server/status.h"
#include "server/translate.h"

namespace distorch {
namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using Given = std::map<std::string, std::vector<FieldValue>>;  // by input or parameter

constexpr int64_t kMaxImages = 64;
// A response must stay below gRPC's 2 GiB.
constexpr int64_t kMaxPixelBytes = int64_t{1} << 30;
constexpr std::array<std::string_view, 3> kOnePerPrompt = {"prompt", "negative_prompt", "seed"};

struct Output {
  std::string_view name, datatype;
  inference::DataType config_type;
  int dimensions;
};
constexpr std::array<Output, 4> kOutputs = {{
    {"image", "UINT8", inference::TYPE_UINT8, 4},
    {"image_file", "BYTES", inference::TYPE_STRING, 1},
    {"latent", "FP32", inference::TYPE_FP32, 4},
    {"seed", "UINT64", inference::TYPE_UINT64, 1},
}};

template <typename... Parts>
absl::Status Bad(std::string_view field, const Parts&... what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", what...));
}

absl::StatusOr<FieldValue> ToValue(const std::string& name, const InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      return parameter.bool_param();
    case InferParameter::kInt64Param:
      return parameter.int64_param();
    case InferParameter::kStringParam:
      return parameter.string_param();
    case InferParameter::kDoubleParam:
      return parameter.double_param();
    case InferParameter::kUint64Param:
      return parameter.uint64_param();
    default:
      return Bad(name, "has no value");
  }
}

absl::StatusOr<Given> ReadInputs(const ModelInferRequest& in) {
  const bool raw = in.raw_input_contents_size() > 0;
  if (raw && in.raw_input_contents_size() != in.inputs_size())
    return Bad("raw_input_contents", "has ", in.raw_input_contents_size(), " entries for ",
               in.inputs_size(), " inputs");
  Given given;
  for (int i = 0; i < in.inputs_size(); ++i) {
    const auto& input = in.inputs(i);
    if (raw && input.has_contents())
      return Bad(input.name(), "has contents beside raw_input_contents");
    ASSIGN_OR_RETURN(std::vector<FieldValue> elements,
                     ReadTensor(input, raw ? &in.raw_input_contents(i) : nullptr, kMaxImages));
    if (!given.emplace(input.name(), std::move(elements)).second)
      return Bad(input.name(), "is given twice");
  }
  for (const auto& [name, parameter] : in.parameters()) {
    ASSIGN_OR_RETURN(FieldValue value, ToValue(name, parameter));
    if (!given.emplace(name, std::vector<FieldValue>{std::move(value)}).second)
      return Bad(name, "is given twice, as an input and as a parameter");
  }
  return given;
}

absl::Status CheckCounts(const Given& given) {
  const auto prompt = given.find("prompt");
  if (prompt == given.end())
    return Bad("prompt", "is required: BYTES, one element for each picture to draw");
  const std::size_t prompts = prompt->second.size();
  for (const auto& [name, elements] : given) {
    if (elements.size() == 1) continue;
    if (!absl::c_linear_search(kOnePerPrompt, name))
      return Bad(name, "has ", elements.size(), " elements; allowed: 1");
    if (elements.size() != prompts)
      return Bad(name, "has ", elements.size(), " elements; allowed: 1, or one for each of the ",
                 prompts, " prompts");
  }
  return absl::OkStatus();
}

// With the fields that `set` sets, checked. There, options stand beside the other fields.
template <typename Set>
absl::StatusOr<InferSpec> ToSpec(const ModelHandles& handles, const RequestLimits& limits,
                                 Set set) {
  v1::InferRequest request;
  request.set_model(handles.model);
  request.set_clip(handles.clip);
  request.set_vae(handles.vae);
  RETURN_IF_ERROR(set(&request));
  absl::StatusOr<InferSpec> spec = ToInferSpec(request, limits);
  if (spec.ok()) return spec;
  return absl::Status(spec.status().code(), absl::StripPrefix(spec.status().message(), "options."));
}

absl::StatusOr<InferSpec> ToSharedSpec(const Given& given, const ModelHandles& handles,
                                       const RequestLimits& limits) {
  return ToSpec(handles, limits, [&](v1::InferRequest* request) -> absl::Status {
    for (const auto& [name, elements] : given)
      RETURN_IF_ERROR(SetInferField(name, elements.front(), request));
    return absl::OkStatus();
  });
}

absl::StatusOr<OpenInfer::Item> ToItem(const Given& given, std::size_t index,
                                       const ModelHandles& handles, const RequestLimits& limits) {
  const auto set = [&](v1::InferRequest* request) -> absl::Status {
    for (const std::string_view name : kOnePerPrompt) {
      const auto it = given.find(std::string(name));
      if (it == given.end()) continue;
      const auto& elements = it->second;
      RETURN_IF_ERROR(SetInferField(name, elements[std::min(index, elements.size() - 1)], request));
    }
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(InferSpec spec, ToSpec(handles, limits, set));
  return OpenInfer::Item{std::move(spec.prompt), std::move(spec.negative_prompt),
                         spec.options.seed};
}

absl::StatusOr<std::vector<std::string>> ToOutputs(const ModelInferRequest& in,
                                                   const Given& given) {
  if (in.outputs().empty())
    return std::vector<std::string>{given.contains("image_format") ? "image_file" : "image",
                                    "seed"};
  std::vector<std::string> names;
  for (const auto& output : in.outputs()) {
    const auto known =
        absl::c_find_if(kOutputs, [&](const Output& o) { return o.name == output.name(); });
    if (known == kOutputs.end())
      return Bad(
          "outputs", Quoted(output.name()), " is not one of ",
          absl::StrJoin(kOutputs, ", ", [](auto* out, const Output& o) { out->append(o.name); }));
    if (!output.parameters().empty())
      return Bad(output.name(), "parameter ", Quoted(output.parameters().begin()->first),
                 " is not supported: outputs come with the response, and have none");
    if (absl::c_linear_search(names, output.name()))
      return Bad(output.name(), "is asked for twice");
    names.push_back(output.name());
  }
  return names;
}

absl::Status CheckSize(const OpenInfer& infer, const RequestLimits& limits) {
  const auto prompts = static_cast<int64_t>(infer.items.size());
  const int64_t images = prompts * infer.spec.batch_size;
  if (images > limits.batch)
    return Bad("batch_size", infer.spec.batch_size, " for each of ", prompts, " prompts is ",
               images, " images; the server takes ", limits.batch, " (--max_batch)");
  const int64_t bytes = images * infer.spec.width * infer.spec.height * 3;
  if (infer.spec.outputs.pixels && bytes > kMaxPixelBytes)
    return Bad("image", "has ", bytes, " bytes; allowed: up to ", kMaxPixelBytes,
               ", and image_file for more");
  return absl::OkStatus();
}

// The tensors of all results, one behind the other along dimension 0.
void AddJoined(std::string_view name, std::string_view datatype,
               std::optional<HostTensor> InferResult::*tensor, std::span<InferResult> results,
               inference::ModelInferResponse* out) {
  HostTensor joined = std::move(results.front().*tensor).value();
  for (InferResult& result : results.subspan(1)) {
    HostTensor next = std::move(result.*tensor).value();
    joined.shape[0] += next.shape[0];
    joined.data += next.data;
  }
  AddTensor(name, datatype, joined.shape, std::move(joined.data), out);
}

void AddFiles(std::span<InferResult> results, inference::ModelInferResponse* out) {
  std::vector<std::string> files;
  for (InferResult& result : results)
    std::move(result.png.begin(), result.png.end(), std::back_inserter(files));
  AddTensor("image_file", "BYTES", {static_cast<int64_t>(files.size())}, PackBytes(files), out);
}

void AddSeeds(std::span<InferResult> results, inference::ModelInferResponse* out) {
  std::string seeds;
  for (const InferResult& result : results)
    seeds.append(reinterpret_cast<const char*>(&result.seed), sizeof(result.seed));
  AddTensor("seed", "UINT64", {static_cast<int64_t>(results.size())}, std::move(seeds), out);
}

}  // namespace

InferSpec OpenInfer::SpecOf(const Item& item) const {
  InferSpec out = spec;
  out.prompt = item.prompt;
  out.negative_prompt = item.negative_prompt;
  out.options.seed = item.seed;
  return out;
}

absl::StatusOr<OpenInfer> ToOpenInfer(const ModelInferRequest& in, const ModelHandles& handles,
                                      const RequestLimits& limits) {
  ASSIGN_OR_RETURN(const Given given, ReadInputs(in));
  RETURN_IF_ERROR(CheckCounts(given));
  OpenInfer out;
  ASSIGN_OR_RETURN(out.spec, ToSharedSpec(given, handles, limits));
  for (std::size_t i = 0; i < given.at("prompt").size(); ++i) {
    ASSIGN_OR_RETURN(OpenInfer::Item item, ToItem(given, i, handles, limits));
    out.items.push_back(std::move(item));
  }
  ASSIGN_OR_RETURN(out.outputs, ToOutputs(in, given));
  out.spec.outputs = {.files = absl::c_linear_search(out.outputs, "image_file"),
                      .pixels = absl::c_linear_search(out.outputs, "image"),
                      .latent = absl::c_linear_search(out.outputs, "latent")};
  RETURN_IF_ERROR(CheckSize(out, limits));
  return out;
}

void ToProto(const OpenInfer& infer, std::span<InferResult> results,
             inference::ModelInferResponse* out) {
  std::set<std::string> warnings;
  for (const InferResult& result : results)
    warnings.insert(result.warnings.begin(), result.warnings.end());
  if (!warnings.empty())
    (*out->mutable_parameters())["warnings"].set_string_param(
        CleanUtf8(absl::StrJoin(warnings, "; ")));
  for (const std::string& name : infer.outputs) {
    if (name == "image") AddJoined(name, "UINT8", &InferResult::pixels, results, out);
    if (name == "image_file") AddFiles(results, out);
    if (name == "latent") AddJoined(name, "FP32", &InferResult::latent, results, out);
    if (name == "seed") AddSeeds(results, out);
  }
}

void DescribeTensors(inference::ModelMetadataResponse* out) {
  for (const OpenField& field : InferFields()) {
    auto* input = out->add_inputs();
    input->set_name(std::string(field.name));
    input->set_datatype(std::string(field.datatype));
    input->add_shape(absl::c_linear_search(kOnePerPrompt, field.name) ? -1 : 1);
  }
  for (const Output& known : kOutputs) {
    auto* output = out->add_outputs();
    output->set_name(std::string(known.name));
    output->set_datatype(std::string(known.datatype));
    for (int i = 0; i < known.dimensions; ++i)
      output->add_shape(known.name == "image" && i == 3 ? 3 : -1);
  }
}

void DescribeTensors(inference::ModelConfig* out) {
  inference::ModelMetadataResponse metadata;
  DescribeTensors(&metadata);
  for (int i = 0; i < metadata.inputs_size(); ++i) {
    inference::ModelInput* input = out->add_input();
    input->set_name(metadata.inputs(i).name());
    input->set_data_type(InferFields()[static_cast<std::size_t>(i)].config_type);
    *input->mutable_dims() = metadata.inputs(i).shape();
    input->set_optional(input->name() != "prompt");
  }
  for (int i = 0; i < metadata.outputs_size(); ++i) {
    inference::ModelOutput* output = out->add_output();
    output->set_name(metadata.outputs(i).name());
    output->set_data_type(kOutputs[static_cast<std::size_t>(i)].config_type);
    *output->mutable_dims() = metadata.outputs(i).shape();
  }
}

}  // namespace distorch
