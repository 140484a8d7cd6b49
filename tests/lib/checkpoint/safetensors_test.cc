#include "lib/checkpoint/safetensors.h"

#include <cstring>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/mapped_file.h"
#include "lib/base/utf8.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

std::string File(uint64_t length, std::string_view rest) {
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file.append(rest);
}

// A file of this header and `data_bytes` zeros.
std::string FileOf(std::string_view header, std::size_t data_bytes = 0) {
  return File(header.size(), header) + std::string(data_bytes, '\0');
}

std::string FileOfTensor(std::string_view description, std::size_t data_bytes = 0) {
  return FileOf(absl::StrCat(R"({"w":)", description, "}"), data_bytes);
}

absl::StatusOr<SafetensorsHeader> Parse(std::string_view file) {
  return ParseSafetensorsHeader(std::as_bytes(std::span(file)));
}

// The message of the INVALID_ARGUMENT that `file` must be.
std::string Error(std::string_view file) {
  const absl::Status status = Parse(file).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_LT(status.message().size(), 1000);
  EXPECT_EQ(Utf8PrefixLength(status.message()), status.message().size());
  return std::string(status.message());
}

// --- valid files ---

TEST(SafetensorsTest, ReadsNamesTypesShapesAndPlaces) {
  const std::string header = R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
                             R"("a":{"data_offsets":[0,4],"shape":[2],"dtype":"BF16"}})";
  const auto parsed = Parse(FileOf(header, 28));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->data_start, 8 + header.size());
  ASSERT_EQ(parsed->index.tensors().size(), 2);
  const TensorInfo& a = parsed->index.tensors()[0];
  const TensorInfo& b = parsed->index.tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DType::kBF16);
  EXPECT_THAT(a.shape, ElementsAre(2));
  EXPECT_EQ(a.offset, parsed->data_start);
  EXPECT_EQ(a.bytes, 4);
  EXPECT_EQ(b.name, "b");
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.elements(), 6);
  EXPECT_EQ(b.offset, parsed->data_start + 4);
  EXPECT_EQ(parsed->index.Find("b"), &b);
  EXPECT_EQ(parsed->index.Find("c"), nullptr);
  EXPECT_TRUE(parsed->index.HasPrefix("a"));
  EXPECT_FALSE(parsed->index.HasPrefix("ab"));
}

TEST(SafetensorsTest, EmptyTensorIsValid) {
  const auto parsed = Parse(FileOf(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("z":{"dtype":"F16","shape":[0,768],"data_offsets":[4,4]},)"
                                   R"("y":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}})",
                                   4));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->index.Find("z")->bytes, 0);
  EXPECT_EQ(parsed->index.Find("z")->elements(), 0);
}

TEST(SafetensorsTest, ScalarIsValid) {
  const auto parsed = Parse(FileOfTensor(R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})", 4));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->index.Find("w")->shape, IsEmpty());
  EXPECT_EQ(parsed->index.Find("w")->elements(), 1);
}

TEST(SafetensorsTest, NoTensorsIsValid) {
  const auto parsed = Parse(FileOf("{}"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->index.tensors(), IsEmpty());
}

TEST(SafetensorsTest, MetadataIsRead) {
  const auto parsed =
      Parse(FileOf(R"({"__metadata__":{"format":"pt","ss_tags":"{\"caf\u00e9\": 1}"}})"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->index.metadata(),
              UnorderedElementsAre(Pair("format", "pt"), Pair("ss_tags", "{\"café\": 1}")));
}

TEST(SafetensorsTest, HeaderPaddedWithSpacesIsValid) {
  const auto parsed =
      Parse(FileOf(R"({"w":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}}       )", 3));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
}

TEST(SafetensorsTest, EveryDtypeIsKnown) {
  for (const auto& [name, bytes] : {std::pair("BOOL", 1),
                                    {"U8", 1},
                                    {"I8", 1},
                                    {"I16", 2},
                                    {"I32", 4},
                                    {"I64", 8},
                                    {"F8_E4M3", 1},
                                    {"F8_E5M2", 1},
                                    {"F16", 2},
                                    {"BF16", 2},
                                    {"F32", 4},
                                    {"F64", 8}}) {
    const auto parsed = Parse(FileOfTensor(
        absl::StrCat(R"({"dtype":")", name, R"(","shape":[1],"data_offsets":[0,)", bytes, "]}"),
        bytes));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
  }
}

TEST(SafetensorsTest, ReadsTheDemoCheckpoint) {
  const auto file =
      MappedFile::Open(DISTORCH_GOLDEN_DIR "/../../deploy/demo/shapes-sd1.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto parsed = ReadSafetensorsHeader(*file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->index.HasPrefix("model.diffusion_model.input_blocks."));
  const TensorInfo* conv = parsed->index.Find("model.diffusion_model.input_blocks.0.0.weight");
  ASSERT_NE(conv, nullptr);
  ASSERT_EQ(conv->shape.size(), 4);
  EXPECT_EQ(conv->shape[1], 4);
  const auto whole = ParseSafetensorsHeader(file->bytes());
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->data_start, parsed->data_start);
}

TEST(SafetensorsTest, ReadsRealSizeHeaders) {
  const TempFolder folder;
  for (const char* name :
       {"sd15.f16", "sd21.f16", "sdxl.f16", "sd3_medium_incl_clips_t5.f16", "flux_dev.fp8"}) {
    const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, name);
    ASSERT_TRUE(entries.ok()) << entries.status();
    const std::string path = folder.File(name);
    ASSERT_TRUE(WriteSafetensors(path, *entries).ok());
    const auto file = MappedFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_GT(file->size(), uint64_t{1} << 30);
    const auto parsed = ReadSafetensorsHeader(*file);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->index.tensors().size(), entries->size());
  }
}

// --- the header as a whole ---

TEST(SafetensorsTest, RejectsFileShorterThanTheLength) {
  EXPECT_THAT(Error(""), HasSubstr("too short: 0 bytes"));
  EXPECT_THAT(Error("1234567"), HasSubstr("too short: 7 bytes"));
}

TEST(SafetensorsTest, RejectsHeaderTooShort) {
  EXPECT_THAT(Error(File(0, "{}")), HasSubstr("length is 0; the least is 2"));
  EXPECT_THAT(Error(File(1, "{}")), HasSubstr("length is 1; the least is 2"));
}

TEST(SafetensorsTest, RejectsHeaderLongerThanTheLimit) {
  EXPECT_THAT(Error(File(100'000'001, "{}")),
              HasSubstr("length is 100000001; the most is 100000000"));
  EXPECT_THAT(Error(File(UINT64_MAX, "{}")), HasSubstr("the most is 100000000"));
}

TEST(SafetensorsTest, RejectsHeaderPastTheEnd) {
  EXPECT_THAT(Error(File(10, "{}")), HasSubstr("truncated: 8 bytes are missing of a header of 10"));
}

TEST(SafetensorsTest, RejectsHeaderThatIsNotUtf8) {
  EXPECT_THAT(Error(FileOf("{\"\xff\":{}}")), HasSubstr("not UTF-8 at byte 2"));
  EXPECT_THAT(Error(FileOf("{\"\xed\xa0\x80\":{}}")),
              HasSubstr("not UTF-8 at byte 2"));                                      // a surrogate
  EXPECT_THAT(Error(FileOf("{\"\xc0\x80\":{}}")), HasSubstr("not UTF-8 at byte 2"));  // overlong
}

TEST(SafetensorsTest, RejectsHeaderThatIsNotJson) {
  EXPECT_THAT(Error(FileOf("{\"w\":")), HasSubstr("not valid JSON at byte 5"));
  EXPECT_THAT(Error(FileOf("{'w':{}}")), HasSubstr("not valid JSON at byte 1"));
  EXPECT_THAT(Error(FileOf("{\"w\" {}}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Error(FileOf("{\"a\":é}")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Error(FileOf(absl::StrCat("{\"", std::string(100'000, 'x')))),
              HasSubstr("not valid JSON"));
}

TEST(SafetensorsTest, RejectsHeaderThatDoesNotBeginWithABrace) {
  EXPECT_THAT(Error(FileOf(" {}")), HasSubstr("must begin with '{', not ' '"));
  EXPECT_THAT(Error(FileOf("[]")), HasSubstr("must begin with '{', not '['"));
  EXPECT_THAT(Error(FileOf("\xef\xbb\xbf{}")), HasSubstr("must begin with '{'"));
}

TEST(SafetensorsTest, RejectsTrailingGarbage) {
  EXPECT_THAT(Error(FileOf("{} x")), HasSubstr("not valid JSON at byte 3"));
  EXPECT_THAT(Error(FileOf("{}{}")), HasSubstr("not valid JSON at byte 2"));
  EXPECT_THAT(Error(FileOf(std::string_view("{}\0\0\0", 5))),
              HasSubstr("byte 2 of the header: a NUL"));
}

TEST(SafetensorsTest, RejectsDuplicateNames) {
  const std::string tensor = R"({"dtype":"I8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(Error(FileOf(absl::StrCat(R"({"w":)", tensor, R"(,"\u0077":)", tensor, "}"))),
              HasSubstr("duplicate name 'w'"));
  EXPECT_THAT(Error(FileOf(R"({"__metadata__":{},"__metadata__":{}})")),
              HasSubstr("duplicate name '__metadata__'"));
  EXPECT_THAT(Error(FileOf(R"({"__metadata__":{"a":"1","a":"2"}})")),
              HasSubstr("duplicate name 'a' in __metadata__"));
}

TEST(SafetensorsTest, RejectsDuplicateFields) {
  EXPECT_THAT(
      Error(FileOfTensor(R"({"dtype":"I8","dtype":"I8","shape":[0],"data_offsets":[0,0]})")),
      HasSubstr("tensor 'w': duplicate field 'dtype'"));
}

TEST(SafetensorsTest, RejectsMissingFields) {
  EXPECT_THAT(Error(FileOfTensor("{}")), HasSubstr("tensor 'w': lacks dtype"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","data_offsets":[0,0]})")),
              HasSubstr("tensor 'w': lacks shape"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[0]})")),
              HasSubstr("tensor 'w': lacks data_offsets"));
}

TEST(SafetensorsTest, RejectsUnknownFields) {
  EXPECT_THAT(
      Error(FileOfTensor(R"({"dtype":"I8","shape":[0],"data_offsets":[0,0],"strides":[1]})")),
      HasSubstr(
          "tensor 'w': unknown field 'strides'; the fields are dtype, shape and data_offsets"));
}

TEST(SafetensorsTest, RejectsNestedDepthBomb) {
  const std::string deep(1'000'000, '[');
  EXPECT_THAT(Error(FileOf("{\"w\":" + deep)), HasSubstr("tensor 'w' must be an object"));
  EXPECT_THAT(Error(FileOfTensor("{\"shape\":" + deep)),
              HasSubstr("tensor 'w': shape must be an array of"));
  std::string objects = "{";
  for (int i = 0; i < 100'000; ++i) objects += "\"a\":{";
  EXPECT_THAT(Error(FileOf(objects)), HasSubstr("tensor 'a': unknown field 'a'"));
}

TEST(SafetensorsTest, RejectsWrongTypes) {
  EXPECT_THAT(Error(FileOf(R"({"w":3})")), HasSubstr("tensor 'w' must be an object of dtype"));
  EXPECT_THAT(Error(FileOf(R"({"w":null})")), HasSubstr("tensor 'w' must be an object"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":7})")),
              HasSubstr("tensor 'w': dtype must be BOOL, U8"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":["F16"]})")), HasSubstr("dtype must be"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":3})")),
              HasSubstr("shape must be an array of integers"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":{}})")),
              HasSubstr("shape must be an array of integers"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":["3"]})")), HasSubstr("not a string"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":[true]})")), HasSubstr("not true"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":[1.5]})")), HasSubstr("not 1.5"));
  EXPECT_THAT(Error(FileOfTensor(R"({"shape":[[1]]})")), HasSubstr("not an array"));
  EXPECT_THAT(Error(FileOfTensor(R"({"data_offsets":"0,4"})")),
              HasSubstr("data_offsets must be two integers"));
}

TEST(SafetensorsTest, RejectsMetadataThatIsNotStrings) {
  EXPECT_THAT(Error(FileOf(R"({"__metadata__":[]})")),
              HasSubstr("__metadata__ must be an object of strings"));
  EXPECT_THAT(Error(FileOf(R"({"__metadata__":{"epoch":3}})")),
              HasSubstr("__metadata__ entry 'epoch' must be a string, not 3"));
  EXPECT_THAT(Error(FileOf(R"({"__metadata__":{"a":{}}})")),
              HasSubstr("must be a string, not an object"));
}

TEST(SafetensorsTest, MessagesQuoteHostileNames) {
  const std::string name = std::string(119, 'n') + "é\\n\\u0007";
  EXPECT_THAT(Error(FileOf(absl::StrCat("{\"", name, "\":1}"))), HasSubstr("nnn...'"));
  EXPECT_THAT(Error(FileOf(R"({"a\nb\u0007":1})")), HasSubstr(R"('a\nb\007')"));
}

// --- one tensor ---

TEST(SafetensorsTest, RejectsUnknownDtype) {
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"F4","shape":[2],"data_offsets":[0,1]})", 1)),
              AllOf(HasSubstr("tensor 'w'"), HasSubstr("unknown dtype 'F4'"),
                    HasSubstr("BF16, F32 or F64")));
}

TEST(SafetensorsTest, RejectsNegativeDim) {
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[2,-1],"data_offsets":[0,2]})", 2)),
              HasSubstr("tensor 'w': shape must be an array of integers from 0 to 2^63-1, not -1"));
}

TEST(SafetensorsTest, RejectsOverflowingShape) {
  const auto with_shape = [](std::string_view shape) {
    return Error(FileOfTensor(
        absl::StrCat(R"({"dtype":"F16","shape":)", shape, R"(,"data_offsets":[0,0]})")));
  };
  EXPECT_THAT(with_shape("[4294967296,4294967296]"), HasSubstr("overflows; at most 2^63-1 bytes"));
  EXPECT_THAT(with_shape("[4611686018427387904]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[4294967296,4294967296,0]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[9223372036854775808]"), HasSubstr("not 9223372036854775808"));
  EXPECT_THAT(with_shape("[99999999999999999999]"), HasSubstr("not 99999999999999999999"));
  EXPECT_THAT(with_shape(absl::StrCat("[", std::string(500, '9'), "]")),
              HasSubstr("number overflow"));
}

TEST(SafetensorsTest, RejectsTooManyDimensions) {
  std::string shape = "1";
  for (int i = 0; i < 64; ++i) shape += ",1";
  EXPECT_THAT(
      Error(FileOfTensor(
          absl::StrCat(R"({"dtype":"I8","shape":[)", shape, R"(],"data_offsets":[0,1]})"), 1)),
      HasSubstr("tensor 'w': shape: over 64 dimensions"));
}

TEST(SafetensorsTest, RejectsReversedOffsets) {
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[2],"data_offsets":[2,0]})", 2)),
              HasSubstr("tensor 'w': data_offsets [2, 0] are reversed"));
}

TEST(SafetensorsTest, RejectsOffsetsThatAreNotTwo) {
  EXPECT_THAT(Error(FileOfTensor(R"({"data_offsets":[]})")),
              HasSubstr("must be two integers, begin and end, not 0"));
  EXPECT_THAT(Error(FileOfTensor(R"({"data_offsets":[0]})")),
              HasSubstr("must be two integers, begin and end, not 1"));
  EXPECT_THAT(Error(FileOfTensor(R"({"data_offsets":[0,1,2]})")),
              HasSubstr("must be two integers"));
}

TEST(SafetensorsTest, RejectsSizeMismatch) {
  EXPECT_THAT(
      Error(FileOfTensor(R"({"dtype":"F16","shape":[2,2],"data_offsets":[0,6]})", 6)),
      HasSubstr("tensor 'w': data_offsets [0, 6] hold 6 bytes, but shape [2, 2] of F16 takes 8"));
}

// --- the tensors together ---

TEST(SafetensorsTest, RejectsTensorPastTheEnd) {
  EXPECT_THAT(
      Error(FileOfTensor(R"({"dtype":"I8","shape":[1000000],"data_offsets":[0,1000000]})", 10)),
      HasSubstr("truncated: 999990 bytes are missing of 1000000 bytes of tensors; the file ends in "
                "tensor 'w'"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[9223372036854775807],)"
                                 R"("data_offsets":[0,9223372036854775807]})")),
              HasSubstr("truncated"));
}

TEST(SafetensorsTest, RejectsOverlap) {
  EXPECT_THAT(Error(FileOf(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                           R"("b":{"dtype":"I8","shape":[4],"data_offsets":[3,7]}})",
                           7)),
              HasSubstr("tensor 'b' at 3 overlaps tensor 'a', which ends at 4"));
}

TEST(SafetensorsTest, RejectsGap) {
  EXPECT_THAT(Error(FileOf(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                           R"("b":{"dtype":"I8","shape":[4],"data_offsets":[6,10]}})",
                           10)),
              HasSubstr("a gap of 2 bytes before tensor 'b' at 6"));
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[4],"data_offsets":[4,8]})", 8)),
              HasSubstr("a gap of 4 bytes before tensor 'w'"));
}

TEST(SafetensorsTest, RejectsMissingData) {
  std::string file = FileOf(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                            R"("b":{"dtype":"I8","shape":[4],"data_offsets":[4,8]}})",
                            8);
  file.resize(file.size() - 6);
  EXPECT_THAT(
      Error(file),
      HasSubstr(
          "truncated: 6 bytes are missing of 8 bytes of tensors; the file ends in tensor 'a'"));
}

TEST(SafetensorsTest, RejectsDataAfterTheLastTensor) {
  EXPECT_THAT(Error(FileOfTensor(R"({"dtype":"I8","shape":[4],"data_offsets":[0,4]})", 7)),
              HasSubstr("3 bytes after the last tensor belong to none"));
}

// --- properties ---

TEST(SafetensorsTest, NoTruncationOfAFileIsValid) {
  const std::string file = FileOf(
      R"({"__metadata__":{"a":"b"},"w":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}})", 4);
  ASSERT_TRUE(Parse(file).ok());
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(Parse(std::string_view(file).substr(0, size)).ok()) << size;
  }
}

TEST(SafetensorsTest, TimeIsLinearInTheTensors) {
  std::vector<SafetensorsEntry> entries;
  for (int i = 0; i < 300'000; ++i) entries.push_back({absl::StrCat("t", i), DType::kI8, {0}, ""});
  const std::string file = SafetensorsHeaderBytes(entries);
  const absl::Time start = absl::Now();
  const auto parsed = Parse(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->index.tensors().size(), 300'000);
  // Measured at 0.3 s; quadratic time would take minutes.
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

}  // namespace
}  // namespace distorch
