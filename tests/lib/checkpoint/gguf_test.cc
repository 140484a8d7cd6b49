#include "lib/checkpoint/gguf.h"

#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/gguf_writer.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0, kF16 = 1, kQ8_0 = 8, kQ4_K = 12, kIq4Xs = 23, kBf16 = 30;

absl::StatusOr<TensorIndex> Read(const std::string& file) {
  return ReadGguf(MemorySource(std::as_bytes(std::span(file))));
}

std::string Error(const std::string& file) {
  const absl::Status status = Read(file).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

const std::vector<std::string> kMetadata = {GgufText("general.architecture", "flux"),
                                            GgufU32("general.file_type", 7)};

std::string Good() {
  return GgufBytes(kMetadata, {{"img_in.weight", kQ8_0, {2, 64}, std::string(4 * 34, 'q')},
                               {"img_in.bias", kF32, {2}, std::string(8, 'b')},
                               {"k.weight", kQ4_K, {1, 512}, std::string(2 * 144, 'k')},
                               {"n", kBf16, {3}, std::string(6, 'n')}});
}

template <typename T>
std::string With(std::string file, size_t offset, T value) {
  return file.replace(offset, sizeof(value), reinterpret_cast<const char*>(&value), sizeof(value));
}

// What is said of a file of one tensor at `offset`, followed by `bytes` bytes of data.
std::string TensorError(const GgufTensor& tensor, uint64_t offset, size_t bytes) {
  std::string file = GgufHeader(kMetadata, {tensor}, {offset});
  file.resize((file.size() + 31) / 32 * 32 + bytes, 'x');
  return Error(file);
}

TEST(GgufTest, ReadsTensorsAndMetadata) {
  const std::string file = Good();
  const auto index = Read(file);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->metadata().at("general.architecture"), "flux");
  EXPECT_EQ(index->metadata().at("general.file_type"), "7");
  const TensorInfo& weight = *index->Find("img_in.weight");
  EXPECT_THAT(weight.shape, ElementsAre(2, 64));
  EXPECT_EQ(weight.dtype, DType::kQ8_0);
  EXPECT_EQ(file.substr(weight.offset, weight.bytes), std::string(136, 'q'));
  const TensorInfo& k = *index->Find("k.weight");
  EXPECT_EQ(file.substr(k.offset, k.bytes), std::string(288, 'k'));
  EXPECT_EQ(index->Find("n")->dtype, DType::kBF16);
  for (const TensorInfo& tensor : index->tensors()) EXPECT_EQ(tensor.offset % 32, 0);
}

// One of the fuzzer's seeds, written by the Python package gguf.
TEST(GgufTest, ReadsWhatThePythonPackageWrites) {
  const auto file = MappedFile::Open(DISTORCH_GOLDEN_DIR "/../fuzz/corpus/gguf_fuzz/small");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto index = ReadGguf(FileSource(*file));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->metadata().at("general.architecture"), "flux");
  EXPECT_EQ(index->metadata().at("f"), "1.5");
  EXPECT_EQ(index->metadata().at("b"), "true");
  EXPECT_THAT(index->Find("w")->shape, ElementsAre(2, 3));
  EXPECT_THAT(index->Find("q")->shape, ElementsAre(32, 1, 3, 3));
  EXPECT_EQ(index->Find("q")->dtype, DType::kQ8_0);
  std::vector<float> w(6);
  ASSERT_TRUE(file->ReadAt(index->Find("w")->offset, std::as_writable_bytes(std::span(w))).ok());
  EXPECT_THAT(w, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(GgufTest, ReadsVersion2AndNotOthers) {
  EXPECT_TRUE(Read(With<uint32_t>(Good(), 4, 2)).ok());
  EXPECT_THAT(Error(With<uint32_t>(Good(), 4, 1)), HasSubstr("version 1; supported are 2 and 3"));
  EXPECT_THAT(Error(With<uint32_t>(Good(), 4, 0x03000000)), HasSubstr("version 50331648"));
}

TEST(GgufTest, ReshapedTensorsHaveTheirOriginalShape) {
  const auto with = [](const std::vector<int32_t>& shape) {
    return GgufBytes({GgufI32Array("comfy.gguf.orig_shape.w", shape)},
                     {{"w", kQ8_0, {9, 32}, std::string(9 * 34, 'q')}});
  };
  const auto index = Read(with({32, 1, 3, 3}));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(index->Find("w")->shape, ElementsAre(32, 1, 3, 3));
  EXPECT_EQ(index->Find("w")->bytes, 9 * 34);
  EXPECT_THAT(Error(with({32, 3, 3, 3})), HasSubstr("cannot have the original shape"));
  EXPECT_THAT(Error(with({-1})), HasSubstr("negative dimension"));
  EXPECT_THAT(Error(with(std::vector<int32_t>(9, 1))), HasSubstr("at most 8 numbers"));
  EXPECT_THAT(Error(with(std::vector<int32_t>(8, 1 << 30))), HasSubstr("original shape"));
}

TEST(GgufTest, HonoursTheAlignment) {
  const std::vector<GgufTensor> tensors = {{"a", kF32, {1}, "aaaa"}, {"b", kF32, {1}, "bbbb"}};
  const std::string file = GgufBytes({GgufU32("general.alignment", 128)}, tensors, 128);
  const auto index = Read(file);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(file.substr(index->Find("b")->offset, 4), "bbbb");
  EXPECT_EQ(index->Find("b")->offset % 128, 0);
  for (const uint32_t wrong : {0u, 3u, 1u << 21}) {
    EXPECT_THAT(Error(GgufBytes({GgufU32("general.alignment", wrong)}, tensors)),
                HasSubstr("allowed: a power of 2"));
  }
}

TEST(GgufTest, NoTruncationIsValid) {
  const std::string file = Good();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(Read(file.substr(0, size)).ok()) << size;
  }
  EXPECT_THAT(Error(file.substr(0, file.size() - 1)),
              AllOf(HasSubstr("truncated"), HasSubstr("tensor 'n'")));
  EXPECT_THAT(Error(file.substr(0, 60)), HasSubstr("truncated: the file of 60 bytes ends within"));
}

TEST(GgufTest, RefusesCountsAndLengthsPastItsLimits) {
  EXPECT_THAT(Error(With<uint64_t>(Good(), 8, UINT64_MAX)), HasSubstr("tensors; the most is"));
  EXPECT_THAT(Error(With<uint64_t>(GgufHeader({}, {}, {}), 8, 50'000)), HasSubstr("truncated"));
  EXPECT_THAT(Error(With<uint64_t>(Good(), 16, UINT64_MAX)), HasSubstr("pairs of metadata"));
  EXPECT_THAT(Error(With<uint64_t>(Good(), 24, UINT64_MAX)), HasSubstr("a metadata key of"));
  std::string array = GgufI32Array("a", {1});
  EXPECT_THAT(Error(GgufBytes({With<uint64_t>(array, array.size() - 12, UINT64_MAX)}, {})),
              HasSubstr("array of 18446744073709551615 values"));
  EXPECT_THAT(Error(GgufBytes({With<uint32_t>(array, array.size() - 16, 9)}, {})),
              HasSubstr("array of the unsupported type 9"));  // nested
  // An array of as many strings as the file never holds.
  array =
      With<uint32_t>(With<uint64_t>(array, array.size() - 12, UINT64_MAX), array.size() - 16, 8);
  EXPECT_THAT(Error(GgufBytes({array}, {})), HasSubstr("truncated"));
}

TEST(GgufTest, RefusesUnknownTypes) {
  EXPECT_THAT(TensorError({"w", 16, {256}, ""}, 0, 1000),
              AllOf(HasSubstr("tensor 'w' has the type 16"), HasSubstr("IQ4_NL and IQ4_XS")));
  std::string pair = GgufU32("a", 1);
  EXPECT_THAT(Error(GgufBytes({With<uint32_t>(pair, pair.size() - 8, 13)}, {})),
              HasSubstr("metadata 'a' has the unknown type 13"));
}

TEST(GgufTest, RefusesWrongShapes) {
  EXPECT_THAT(TensorError({"w", kQ8_0, {32, 33}, ""}, 0, 5000),
              HasSubstr("rows of 33 elements, no whole number of blocks of 32"));
  EXPECT_THAT(TensorError({"w", kIq4Xs, {128}, ""}, 0, 5000), HasSubstr("blocks of 256"));
  EXPECT_THAT(TensorError({"w", kF16, {1, 1, 1, 1, 1}, ""}, 0, 100), HasSubstr("5 dimensions"));
  EXPECT_THAT(TensorError({"w", kF16, {-1}, ""}, 0, 100), HasSubstr("overflows"));
  EXPECT_THAT(TensorError({"w", kF16, {int64_t{1} << 62, 4}, ""}, 0, 100), HasSubstr("overflows"));
  EXPECT_THAT(TensorError({"w", kF16, {int64_t{1} << 40, int64_t{1} << 40, 0}, ""}, 0, 100),
              HasSubstr("overflows"));
}

TEST(GgufTest, RefusesTensorsPastTheFileOrEachOther) {
  EXPECT_THAT(TensorError({"w", kF32, {64}, ""}, 0, 255), HasSubstr("truncated: tensor 'w'"));
  EXPECT_THAT(TensorError({"w", kF32, {1}, ""}, UINT64_MAX - 31, 64), HasSubstr("truncated"));
  EXPECT_THAT(TensorError({"w", kF32, {1}, ""}, 16, 64), HasSubstr("not aligned to 32"));
  std::string file = GgufHeader({}, {{"a", kF32, {16}, ""}, {"b", kF32, {16}, ""}}, {0, 32});
  file.resize(file.size() + 256, 'x');
  EXPECT_THAT(Error(file), HasSubstr("tensor 'b' at 32 overlaps the tensor before"));
}

TEST(GgufTest, RefusesDuplicatesAndBadText) {
  EXPECT_THAT(Error(GgufBytes({GgufU32("a", 1), GgufU32("a", 1)}, {})),
              HasSubstr("duplicate metadata 'a'"));
  EXPECT_THAT(Error(GgufBytes({}, {{"w", kF32, {1}, "wwww"}, {"w", kF32, {1}, "wwww"}})),
              HasSubstr("duplicate tensor 'w'"));
  EXPECT_THAT(Error(GgufBytes({}, {{"\xff", kF32, {1}, "wwww"}})), HasSubstr("is not UTF-8"));
}

}  // namespace
}  // namespace distorch
