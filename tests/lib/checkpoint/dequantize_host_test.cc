// Against what the Python package gguf makes of the same bytes (tests/golden/dequantize).
#include "lib/checkpoint/dequantize_host.h"

#include <bit>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/checkpoint/checkpoint_file.h"

namespace distorch {
namespace {

class DequantizeTest : public testing::TestWithParam<DType> {};

TEST_P(DequantizeTest, EqualsTheReferenceBitForBit) {
  const auto file =
      CheckpointFile::Open(absl::StrCat(DISTORCH_GOLDEN_DIR, "/dequantize/blocks.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string name(DTypeName(GetParam()));
  const TensorInfo* blocks = (*file)->index().Find(name + ".blocks");
  const TensorInfo* expected = (*file)->index().Find(name + ".expected");
  ASSERT_TRUE(blocks != nullptr && expected != nullptr);
  const auto elements = static_cast<uint64_t>(expected->elements());
  ASSERT_EQ(BytesOf(GetParam(), elements), blocks->bytes);
  std::vector<float> want(elements), got(elements);
  ASSERT_TRUE((*file)->Read(*expected, 0, std::as_writable_bytes(std::span(want))).ok());
  DequantizeBlocks(GetParam(), (*file)->Data(*blocks), got);
  for (size_t i = 0; i < elements; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << "element " << i << ": " << got[i] << ", expected " << want[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DequantizeTest,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                         DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL,
                                         DType::kIQ4_XS),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

}  // namespace
}  // namespace distorch
