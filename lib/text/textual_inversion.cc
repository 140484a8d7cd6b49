#include "lib/text/textual_inversion.h"

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/torch_dtype.h"
#include "lib/base/utf8.h"

namespace distorch::text {
namespace {

constexpr int64_t kMaxVectors = 1024, kMaxWidth = 1 << 16;

std::vector<const TensorInfo*> Bundled(const TensorIndex& index, std::string_view suffix) {
  std::vector<const TensorInfo*> found;
  for (const TensorInfo& tensor : index.tensors()) {
    if (absl::StartsWith(tensor.name, "bundle_emb.") && absl::EndsWith(tensor.name, suffix)) {
      found.push_back(&tensor);
    }
  }
  return found;
}

std::vector<const TensorInfo*> ChooseTensors(const TensorIndex& index,
                                             std::string_view transformer) {
  for (const TensorInfo& tensor : index.tensors()) {
    if (absl::StartsWith(tensor.name, "string_to_param.")) return {&tensor};
  }
  if (const TensorInfo* own = index.Find(transformer)) return {own};
  for (const std::string& suffix :
       {std::string(".string_to_param.*"), absl::StrCat(".", transformer)}) {
    if (auto bundled = Bundled(index, suffix); !bundled.empty()) return bundled;
  }
  if (index.tensors().empty()) return {};
  return {&index.tensors().front()};
}

absl::StatusOr<at::Tensor> ReadVectors(const CheckpointFile& file, const TensorInfo& tensor) {
  const std::vector<int64_t>& shape = tensor.shape;
  if (shape.empty() || shape.size() > 2 || IsQuantized(tensor.dtype) || !IsFloating(tensor.dtype) ||
      tensor.elements() == 0 || shape.back() > kMaxWidth ||
      tensor.elements() / shape.back() > kMaxVectors) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quoted(tensor.name), " is ", DTypeName(tensor.dtype), " of shape ",
                     ShapeString(shape), ", no textual inversion: allowed are up to ", kMaxVectors,
                     " vectors of up to ", kMaxWidth, " floating-point numbers"));
  }
  at::Tensor stored = at::empty(shape, ToScalarType(tensor.dtype));
  RETURN_IF_ERROR(
      file.Read(tensor, 0, {static_cast<std::byte*>(stored.mutable_data_ptr()), stored.nbytes()}));
  return stored.to(at::kFloat).reshape({-1, shape.back()});
}

}  // namespace

absl::StatusOr<at::Tensor> ReadTextualInversion(const CheckpointFile& file,
                                                std::string_view transformer) {
  const std::vector<const TensorInfo*> tensors = ChooseTensors(file.index(), transformer);
  if (tensors.empty()) return absl::InvalidArgumentError("it has no tensors");
  std::vector<at::Tensor> parts;
  for (const TensorInfo* tensor : tensors) {
    ASSIGN_OR_RETURN(at::Tensor part, ReadVectors(file, *tensor));
    if (!parts.empty() && part.size(1) != parts.front().size(1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor->name), " has vectors of ", part.size(1),
                       " numbers, those before it of ", parts.front().size(1)));
    }
    parts.push_back(std::move(part));
  }
  return at::cat(parts, 0);
}

}  // namespace distorch::text
