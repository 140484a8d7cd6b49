// What tests of PyTorch's files read of tests/golden/torch_archive.
#ifndef TESTS_LIB_CHECKPOINT_TORCH_GOLDEN_H_
#define TESTS_LIB_CHECKPOINT_TORCH_GOLDEN_H_

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/checkpoint/checkpoint_file.h"

namespace distorch {

inline std::shared_ptr<const CheckpointFile> Golden(const std::string& name) {
  auto file = CheckpointFile::Open(absl::StrCat(DISTORCH_GOLDEN_DIR, "/torch_archive/", name));
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *file : nullptr;
}

inline std::vector<std::string> Names(const TensorIndex& index) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : index.tensors()) names.push_back(tensor.name);
  return names;
}

template <typename T>
std::vector<T> Values(const CheckpointFile& file, std::string_view name) {
  const TensorInfo* tensor = file.index().Find(name);
  if (tensor == nullptr) return {};
  std::vector<T> values(tensor->bytes / sizeof(T));
  EXPECT_TRUE(file.Read(*tensor, 0, std::as_writable_bytes(std::span(values))).ok());
  return values;
}

}  // namespace distorch

#endif  // TESTS_LIB_CHECKPOINT_TORCH_GOLDEN_H_
