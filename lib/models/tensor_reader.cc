#include "lib/models/tensor_reader.h"

#include <ATen/ATen.h>

#include <cstddef>
#include <span>

#include "lib/base/torch_dtype.h"

namespace distorch::models {
namespace {

constexpr int64_t kMaxValues = 1 << 16;

}  // namespace

std::vector<float> TensorReader::Values(const NamedTensors& tensors, std::string_view name) {
  auto found = tensors.find(name);
  if (found == tensors.end() || found->second.pieces.size() != 1) return {};
  const TensorInfo& info = *found->second.pieces[0].tensor;
  const int64_t count = info.elements();
  if (!IsFloating(info.dtype) || count < 1 || count > kMaxValues) return {};
  std::vector<std::byte> bytes(info.bytes);
  const absl::Status read = file_->Read(info, 0, bytes);
  status_.Update(read);
  if (!read.ok()) return {};
  const at::Tensor values =
      at::from_blob(bytes.data(), {count}, at::TensorOptions(ToScalarType(info.dtype)))
          .to(at::kFloat);
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + count};
}

}  // namespace distorch::models
