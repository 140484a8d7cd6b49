#include "lib/checkpoint/strided_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

namespace distorch {
namespace {

struct View {
  std::string name;
  std::vector<int64_t> shape, strides;
};

// The view's elements row by row, as positions in its storage.
std::vector<int64_t> Positions(const View& view) {
  std::vector<int64_t> positions = {0};
  for (size_t i = 0; i < view.shape.size(); ++i) {
    std::vector<int64_t> further;
    for (const int64_t position : positions) {
      for (int64_t index = 0; index < view.shape[i]; ++index)
        further.push_back(position + index * view.strides[i]);
    }
    positions = std::move(further);
  }
  return positions;
}

class ReadStridedTest : public ::testing::TestWithParam<View> {};

TEST_P(ReadStridedTest, AnyRangeIsAsInTheContiguousTensor) {
  const View& view = GetParam();
  constexpr uint64_t kOffset = 6;
  const uint64_t span = *SpanOf(view.shape, view.strides);
  std::vector<uint16_t> storage(span);
  std::iota(storage.begin(), storage.end(), 1000);
  // No byte behind the last element is there to be read.
  std::string file(kOffset, '?');
  file.append(reinterpret_cast<const char*>(storage.data()), 2 * storage.size());
  const MemorySource source(std::as_bytes(std::span(file)));
  std::vector<uint16_t> expected;
  for (const int64_t position : Positions(view))
    expected.push_back(storage[static_cast<size_t>(position)]);

  TensorInfo tensor;
  tensor.dtype = DType::kF16;
  tensor.shape = view.shape;
  tensor.strides = view.strides;
  tensor.offset = kOffset;
  tensor.bytes = 2 * expected.size();

  for (uint64_t begin = 0; begin <= tensor.bytes; ++begin) {
    for (uint64_t end = begin; end <= tensor.bytes; ++end) {
      std::vector<std::byte> out(end - begin);
      ASSERT_TRUE(ReadStrided(source, tensor, begin, out).ok()) << begin << " to " << end;
      ASSERT_TRUE(out.empty() ||
                  std::memcmp(out.data(), reinterpret_cast<const char*>(expected.data()) + begin,
                              out.size()) == 0)
          << begin << " to " << end;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Views, ReadStridedTest,
                         ::testing::Values(View{"transposed", {4, 3}, {1, 4}},
                                           View{"columns", {3, 2}, {5, 1}},
                                           View{"column", {4}, {3}},
                                           View{"every_second_of_each", {3, 2}, {8, 2}},
                                           View{"one_row", {1, 3}, {0, 2}},
                                           View{"channels_last", {2, 3, 2, 2}, {12, 1, 6, 3}},
                                           View{"reversed", {2, 3, 4}, {1, 2, 6}},
                                           View{"middle_of_one", {2, 1, 3}, {5, 0, 1}}),
                         [](const auto& info) { return info.param.name; });

TEST(ReadStridedTest, AnErrorOfTheFileIsItsError) {
  TensorInfo tensor;
  tensor.shape = {2, 2};
  tensor.strides = {1, 2};
  tensor.bytes = 16;
  const std::vector<std::byte> file(15);
  std::vector<std::byte> out(16);
  EXPECT_EQ(ReadStrided(MemorySource(file), tensor, 0, out).code(), absl::StatusCode::kDataLoss);
}

TEST(SpanOfTest, SaysWhenItOverflows) {
  EXPECT_EQ(SpanOf({3, 4}, {1, 3}), 12u);
  EXPECT_EQ(SpanOf({1, 1}, {INT64_MAX, INT64_MAX}), 1u);
  EXPECT_EQ(SpanOf({3}, {INT64_MAX}), std::nullopt);
  EXPECT_EQ(SpanOf({INT64_MAX, 2}, {INT64_MAX, 1}), std::nullopt);
  EXPECT_EQ(SpanOf({2, 2}, {int64_t{1} << 60, 1}), std::nullopt);
}

TEST(IsContiguousTest, DimensionsOfOneSayNothing) {
  EXPECT_TRUE(IsContiguous({}, {}));
  EXPECT_TRUE(IsContiguous({2, 3}, {3, 1}));
  EXPECT_TRUE(IsContiguous({2, 1, 3}, {3, 77, 1}));
  EXPECT_FALSE(IsContiguous({2, 3}, {1, 2}));
  EXPECT_FALSE(IsContiguous({2, 3}, {4, 1}));
}

}  // namespace
}  // namespace distorch
