// Every method of every service, and who may call it.
#ifndef SERVER_METHODS_H_
#define SERVER_METHODS_H_

#include <string_view>

#include "server/tokens_file.h"

namespace distorch {

struct Method {
  std::string_view name;  // as gRPC has it in :path
  Role role;
};

// Looking is for viewers, computing for users, changing what is loaded for admins. Health and
// reflection (gRPC's own services) are open to everyone: they tell nothing but that the server is
// there and what is in the .proto files.
inline constexpr Method kMethods[] = {
    {"/distorch.v1.ModelService/ListDevices", Role::kViewer},
    {"/distorch.v1.ModelService/ListCheckpoints", Role::kViewer},
    {"/distorch.v1.ModelService/PlanCheckpoint", Role::kViewer},
    {"/distorch.v1.ModelService/ListModels", Role::kViewer},
    {"/distorch.v1.ModelService/ListLinks", Role::kViewer},
    {"/distorch.v1.ModelService/SetClipSkip", Role::kUser},
    {"/distorch.v1.ModelService/LoadCheckpoint", Role::kAdmin},
    {"/distorch.v1.ModelService/LoadCheckpointStream", Role::kAdmin},
    {"/distorch.v1.ModelService/ApplyLora", Role::kAdmin},
    {"/distorch.v1.ModelService/Unload", Role::kAdmin},

    {"/distorch.v1.InferenceService/Infer", Role::kUser},
    {"/distorch.v1.InferenceService/EncodeText", Role::kUser},
    {"/distorch.v1.InferenceService/Sample", Role::kUser},
    {"/distorch.v1.InferenceService/Denoise", Role::kUser},
    {"/distorch.v1.InferenceService/DecodeLatent", Role::kUser},
    {"/distorch.v1.InferenceService/EncodeImage", Role::kUser},

    {"/inference.GRPCInferenceService/ServerLive", Role::kViewer},
    {"/inference.GRPCInferenceService/ServerReady", Role::kViewer},
    {"/inference.GRPCInferenceService/ServerMetadata", Role::kViewer},
    {"/inference.GRPCInferenceService/ModelReady", Role::kViewer},
    {"/inference.GRPCInferenceService/ModelMetadata", Role::kViewer},
    {"/inference.GRPCInferenceService/ModelConfig", Role::kViewer},
    {"/inference.GRPCInferenceService/ModelStatistics", Role::kViewer},
    {"/inference.GRPCInferenceService/RepositoryIndex", Role::kViewer},
    {"/inference.GRPCInferenceService/ModelInfer", Role::kUser},
    {"/inference.GRPCInferenceService/ModelStreamInfer", Role::kUser},
    {"/inference.GRPCInferenceService/RepositoryModelLoad", Role::kAdmin},
    {"/inference.GRPCInferenceService/RepositoryModelUnload", Role::kAdmin},
};

// nullptr when there is no such method.
constexpr const Method* FindMethod(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

// How a service names the method that it serves. A name that is not in the table does not compile,
// so that no method is served whose role nobody has chosen.
class MethodName {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): stands for the literal it is made of.
  consteval MethodName(const char* full_name) : full_(full_name) {
    if (FindMethod(full_name) == nullptr) throw "not in kMethods";
  }

  // "/distorch.v1.ModelService/ListDevices".
  constexpr std::string_view full() const { return full_; }
  // "ListDevices".
  constexpr std::string_view brief() const { return full_.substr(full_.rfind('/') + 1); }

 private:
  std::string_view full_;
};

}  // namespace distorch

#endif  // SERVER_METHODS_H_
