#include "lib/checkpoint/checkpoint_file.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

std::shared_ptr<const CheckpointFile> OpenOk(const std::string& path) {
  auto file = CheckpointFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *file : nullptr;
}

std::string Fingerprint(const std::string& path) {
  const auto fingerprint = OpenOk(path)->Fingerprint();
  EXPECT_TRUE(fingerprint.ok()) << fingerprint.status();
  return fingerprint.value_or("");
}

// What Open says of a file of `content`.
std::string OpenError(std::string_view content) {
  const TempFolder folder;
  const std::string path = folder.Write("file.ckpt", content);
  const absl::Status status = CheckpointFile::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  return std::string(status.message());
}

void FlipByte(const std::string& path, int64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const char flipped = static_cast<char>(file.get() ^ 1);
  file.seekp(offset).put(flipped);
  ASSERT_TRUE(file.good());
}

class CheckpointFileTest : public ::testing::Test {
 protected:
  // 3 bytes and a float; 5 MiB of zeros between them in the large one.
  std::string WriteSmall(std::string_view name) { return Write(name, {}); }
  std::string WriteLarge(std::string_view name) {
    return Write(name, {{"big", DType::kU8, {5 << 20}, ""}});
  }

  const TempFolder folder_;

 private:
  std::string Write(std::string_view name, const std::vector<SafetensorsEntry>& middle) {
    std::vector<SafetensorsEntry> entries = {{"bytes", DType::kU8, {3}, "abc"}};
    entries.insert(entries.end(), middle.begin(), middle.end());
    entries.push_back({"float", DType::kF32, {}, std::string("\0\0\x80\x3f", 4)});
    const std::string path = folder_.File(name);
    EXPECT_TRUE(WriteSafetensors(path, entries).ok());
    return path;
  }
};

TEST_F(CheckpointFileTest, DataAndReadGiveTheTensorsBytes) {
  const auto file = OpenOk(WriteSmall("a"));
  const TensorInfo& bytes = *file->index().Find("bytes");
  const auto data = file->Data(bytes);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(data.data()), data.size()), "abc");
  std::string tail(2, '\0');
  ASSERT_TRUE(file->Read(bytes, 1, std::as_writable_bytes(std::span(tail))).ok());
  EXPECT_EQ(tail, "bc");
}

TEST_F(CheckpointFileTest, ReadPastTheTensorIsOutOfRange) {
  const auto file = OpenOk(WriteSmall("a"));
  const TensorInfo& bytes = *file->index().Find("bytes");
  std::byte out[2];
  EXPECT_EQ(file->Read(bytes, 2, out).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(file->Read(bytes, 4, out).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(file->Read(bytes, UINT64_MAX, out).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(CheckpointFileTest, ReadOfATruncatedFileIsDataLoss) {
  const std::string path = WriteSmall("a");
  const auto file = OpenOk(path);
  std::filesystem::resize_file(path, file->size() - 2);
  std::byte out[4];
  EXPECT_EQ(file->Read(*file->index().Find("float"), 0, out).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file->Fingerprint().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointFileTest, FingerprintIsEqualAcrossCopies) {
  const std::string path = WriteLarge("a");
  const std::string copy = folder_.File("sub/other name");
  std::filesystem::copy_file(path, copy);
  std::filesystem::last_write_time(copy, std::filesystem::file_time_type::min());
  EXPECT_THAT(Fingerprint(path), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(Fingerprint(path), Fingerprint(copy));
}

TEST_F(CheckpointFileTest, FingerprintCoversEveryByteOfASmallFile) {
  const std::string path = WriteSmall("a");
  const std::string original = Fingerprint(path);
  const auto data_start = static_cast<int64_t>(OpenOk(path)->index().tensors().front().offset);
  for (int64_t offset = data_start; offset < data_start + 7; ++offset) {
    FlipByte(path, offset);
    EXPECT_NE(Fingerprint(path), original) << offset;
    FlipByte(path, offset);
  }
  EXPECT_EQ(Fingerprint(path), original);
}

TEST_F(CheckpointFileTest, FingerprintCoversTheEndsOfALargeFile) {
  const std::string path = WriteLarge("a");
  const std::string original = Fingerprint(path);
  const auto file = OpenOk(path);
  for (const uint64_t offset : {file->index().tensors().front().offset, file->size() - 1}) {
    FlipByte(path, static_cast<int64_t>(offset));
    EXPECT_NE(Fingerprint(path), original) << offset;
    FlipByte(path, static_cast<int64_t>(offset));
  }
}

TEST_F(CheckpointFileTest, FingerprintSeesAnyChangeOfAHundredthOfALargeFile) {
  const std::string path = WriteLarge("a");
  const std::string original = Fingerprint(path);
  const auto offset =
      static_cast<std::streamoff>(OpenOk(path)->index().Find("big")->offset + 1'234'567);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset) << std::string((5 << 20) / 100, 'x');
  file.close();
  EXPECT_NE(Fingerprint(path), original);
}

TEST_F(CheckpointFileTest, FingerprintSeesAChangeOfAnySmallTensor) {
  std::vector<SafetensorsEntry> entries;
  for (int i = 0; i < 20; ++i) {
    entries.push_back({absl::StrCat("big", i), DType::kU8, {700'000 + i}, ""});
    entries.push_back({absl::StrCat("bias", i), DType::kF16, {64}, ""});
  }
  const std::string path = folder_.File("a");
  ASSERT_TRUE(WriteSafetensors(path, entries).ok());
  const std::string original = Fingerprint(path);
  const auto file = OpenOk(path);
  for (int i = 0; i < 20; ++i) {
    const TensorInfo& bias = *file->index().Find(absl::StrCat("bias", i));
    const auto offset = static_cast<int64_t>(bias.offset + bias.bytes / 2);
    FlipByte(path, offset);
    EXPECT_NE(Fingerprint(path), original) << bias.name;
    FlipByte(path, offset);
  }
}

TEST_F(CheckpointFileTest, FingerprintDiffersForAnotherSize) {
  for (const int64_t bytes : {1, 5 << 20}) {
    const std::string a = folder_.File("a"), b = folder_.File("b");
    ASSERT_TRUE(WriteSafetensors(a, {{"w", DType::kU8, {bytes}, ""}}).ok());
    ASSERT_TRUE(WriteSafetensors(b, {{"w", DType::kU8, {bytes + 1}, ""}}).ok());
    EXPECT_NE(Fingerprint(a), Fingerprint(b));
  }
}

TEST_F(CheckpointFileTest, OpensASparseFileOfRealSize) {
  const auto entries = RealHeader(DISTORCH_GOLDEN_DIR, "flux_dev.fp8");
  ASSERT_TRUE(entries.ok()) << entries.status();
  const std::string path = folder_.File("flux");
  ASSERT_TRUE(WriteSafetensors(path, *entries).ok());
  const auto file = OpenOk(path);
  EXPECT_GT(file->size(), uint64_t{15} << 30);
  EXPECT_EQ(file->index().tensors().size(), entries->size());
  EXPECT_EQ(Fingerprint(path).size(), 32);
}

// --- several files ---

class ShardsTest : public ::testing::Test {
 protected:
  ShardsTest() {
    WriteShard("m-00001-of-00002.safetensors", "a", "aaaa");
    WriteShard("m-00002-of-00002.safetensors", "b", "bbbb");
  }
  void WriteShard(std::string_view file, const std::string& tensor, const std::string& data) {
    EXPECT_TRUE(WriteSafetensors(folder_.File(file), {{tensor, DType::kU8, {4}, data}}).ok());
  }
  std::string WriteIndex(std::string_view weight_map) {
    return folder_.Write(
        "m.safetensors.index.json",
        absl::StrCat(R"({"metadata":{"total_size":8},"weight_map":)", weight_map, "}"));
  }
  std::string WriteGoodIndex() {
    return WriteIndex(R"({"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"})");
  }
  std::string IndexError(std::string_view weight_map) {
    const absl::Status status = CheckpointFile::Open(WriteIndex(weight_map)).status();
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }

  const TempFolder folder_;
};

TEST_F(ShardsTest, TheIndexAndEveryShardOpenTheWhole) {
  const std::string index = WriteGoodIndex();
  const std::string fingerprint = Fingerprint(index);
  for (const std::string& path : {index, folder_.File("m-00001-of-00002.safetensors"),
                                  folder_.File("m-00002-of-00002.safetensors")}) {
    const auto file = OpenOk(path);
    ASSERT_EQ(file->index().tensors().size(), 2);
    std::string b(4, '\0');
    ASSERT_TRUE(file->Read(*file->index().Find("b"), 0, std::as_writable_bytes(std::span(b))).ok());
    EXPECT_EQ(b, "bbbb");
    EXPECT_EQ(file->Data(*file->index().Find("a")).size(), 4);
    EXPECT_EQ(Fingerprint(path), fingerprint);
  }
  WriteShard("m-00002-of-00002.safetensors", "b", "bbbc");
  EXPECT_NE(Fingerprint(index), fingerprint);
}

TEST_F(ShardsTest, AShardWithoutAnIndexIsAFile) {
  EXPECT_EQ(OpenOk(folder_.File("m-00001-of-00002.safetensors"))->index().tensors().size(), 1);
}

TEST_F(ShardsTest, RefusesAMalformedIndex) {
  EXPECT_THAT(IndexError("{}"), HasSubstr("no weight_map"));
  EXPECT_THAT(IndexError("[]"), HasSubstr("no weight_map"));
  EXPECT_THAT(IndexError(R"({"a":3})"), HasSubstr("tensor 'a' is in no file"));
  EXPECT_THAT(IndexError("{"), HasSubstr("is no JSON object"));
  EXPECT_THAT(IndexError(std::string(100'000, '[')), HasSubstr("is no JSON object"));
  for (const char* file : {"../x", "/etc/passwd", "sub/m", "..", ""}) {
    EXPECT_THAT(IndexError(absl::StrCat(R"({"a":")", file, "\"}")),
                HasSubstr("is not one of its folder"));
  }
}

TEST_F(ShardsTest, RefusesMissingShardsAndTensors) {
  EXPECT_THAT(IndexError(R"({"a":"m-00003-of-00002.safetensors"})"), HasSubstr("m-00003-of-00002"));
  EXPECT_THAT(IndexError(R"({"c":"m-00001-of-00002.safetensors"})"),
              HasSubstr("no file holds the tensor 'c'"));
  WriteShard("m-00002-of-00002.safetensors", "a", "bbbb");
  EXPECT_THAT(
      IndexError(R"({"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"})"),
      HasSubstr("the tensor 'a' is in two files"));
}

TEST(DiffusersFolderTest, NamesBeginWithTheSubfolder) {
  const TempFolder folder;
  folder.Write("sd/model_index.json", "{}");
  const auto write = [&](std::string_view file, const std::string& tensor) {
    ASSERT_TRUE(WriteSafetensors(folder.File(file), {{tensor, DType::kU8, {1}, "x"}}).ok());
  };
  EXPECT_THAT(std::string(CheckpointFile::Open(folder.path() + "/sd").status().message()),
              HasSubstr("neither unet/ nor transformer/ holds"));
  write("sd/unet/diffusion_pytorch_model.safetensors", "conv_in.weight");
  write("sd/text_encoder/model.fp16.safetensors", "w");
  write("sd/safety_checker/model.safetensors", "w");
  const auto file = OpenOk(folder.path() + "/sd");
  EXPECT_EQ(file->format(), "diffusers");
  EXPECT_EQ(file->index().tensors().size(), 2);
  EXPECT_NE(file->index().Find("unet.conv_in.weight"), nullptr);
  EXPECT_NE(file->index().Find("text_encoder.w"), nullptr);
}

TEST(CheckpointFileOpenTest, MissingFileIsNotFound) {
  const TempFolder folder;
  EXPECT_EQ(CheckpointFile::Open(folder.File("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST(CheckpointFileOpenTest, SaysWhatOtherFormatsAre) {
  EXPECT_THAT(OpenError(""), HasSubstr("the file is empty"));
  EXPECT_THAT(OpenError(std::string_view("PK\x03\x04\0\0\x08\x08", 8)),
              HasSubstr("zip archive: it has no end record"));
  EXPECT_THAT(OpenError("\x80\x04}."), HasSubstr("a Python pickle, but not one of torch.save"));
  EXPECT_THAT(OpenError(std::string_view("GGUF\x03\0\0\0\x01\0\0\0", 12)),
              HasSubstr("GGUF: truncated"));
  EXPECT_THAT(OpenError("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
              HasSubstr("Git LFS pointer"));
  EXPECT_THAT(OpenError("\n<!DOCTYPE html>\n<html lang=\"en\">"), HasSubstr("HTML page"));
  EXPECT_THAT(OpenError("{\"error\": \"Invalid credentials\"}"),
              HasSubstr(R"(a text file that begins with '{\"error\": \"Invalid credentials\"}')"));
}

TEST(CheckpointFileOpenTest, HeaderErrorsNameTheFile) {
  EXPECT_THAT(OpenError(std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)),
              AllOf(HasSubstr("safetensors: the header's length")));
}

// A header's length may begin as a pickle does (0x0280 is 640 bytes).
TEST(CheckpointFileOpenTest, HeaderLengthIsNotTakenForAPickle) {
  const TempFolder folder;
  std::string content = std::string("\x80\x02\0\0\0\0\0\0", 8) + "{}" + std::string(638, ' ');
  EXPECT_TRUE(CheckpointFile::Open(folder.Write("a", content)).ok());
}

}  // namespace
}  // namespace distorch
