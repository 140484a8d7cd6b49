#include "lib/base/mapped_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

MappedFile OpenOk(const std::string& path) {
  auto file = MappedFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

TEST(MappedFileTest, MapsTheWholeFile) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "hello");
  const MappedFile file = OpenOk(path);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.size(), 5);
  EXPECT_EQ(Text(file.bytes()), "hello");
}

TEST(MappedFileTest, EmptyFileIsAnEmptySpan) {
  const TempFolder folder;
  const MappedFile file = OpenOk(folder.Write("f", ""));
  EXPECT_TRUE(file.bytes().empty());
  EXPECT_TRUE(file.ReadAt(0, {}).ok());
}

TEST(MappedFileTest, OutlivesItsName) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "hello");
  const MappedFile file = OpenOk(path);
  std::filesystem::remove(path);
  EXPECT_EQ(Text(file.bytes()), "hello");
}

TEST(MappedFileTest, MovesKeepTheMapping) {
  const TempFolder folder;
  MappedFile a = OpenOk(folder.Write("a", "aaa"));
  MappedFile b = OpenOk(folder.Write("b", "bb"));
  const std::byte* data = a.bytes().data();
  MappedFile moved = std::move(a);
  EXPECT_EQ(moved.bytes().data(), data);
  b = std::move(moved);
  EXPECT_EQ(Text(b.bytes()), "aaa");
  std::byte out[3];
  EXPECT_TRUE(b.ReadAt(0, out).ok());
}

TEST(MappedFileTest, MissingFileIsNotFound) {
  const TempFolder folder;
  const absl::Status status = MappedFile::Open(folder.File("none")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder.path() + "/none"));
}

TEST(MappedFileTest, FileAsAFolderIsNotFound) {
  const TempFolder folder;
  EXPECT_EQ(MappedFile::Open(folder.Write("f", "x") + "/g").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(MappedFileTest, UnreadableFileIsPermissionDenied) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempFolder folder;
  const std::string path = folder.Write("f", "x");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  EXPECT_EQ(MappedFile::Open(path).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST(MappedFileTest, OnlyRegularFilesAreTaken) {
  const TempFolder folder;
  const std::string fifo = folder.File("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path :
       {folder.path(), fifo, std::string("/dev/zero"), std::string("a\0b", 3)}) {
    EXPECT_EQ(MappedFile::Open(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST(MappedFileTest, ReadAtCopiesExactlyWhatIsAsked) {
  const TempFolder folder;
  const MappedFile file = OpenOk(folder.Write("f", "hello"));
  std::string out(3, '\0');
  ASSERT_TRUE(file.ReadAt(1, std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(out, "ell");
  EXPECT_TRUE(file.ReadAt(5, {}).ok());
}

TEST(MappedFileTest, ReadAtPastTheEndIsDataLoss) {
  const TempFolder folder;
  const MappedFile file = OpenOk(folder.Write("f", "hello"));
  std::byte out[2];
  EXPECT_EQ(file.ReadAt(4, out).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file.ReadAt(6, out).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file.ReadAt(UINT64_MAX, out).code(), absl::StatusCode::kDataLoss);
}

TEST(MappedFileTest, ReadAtSurvivesTruncation) {
  const TempFolder folder;
  const std::string path = folder.Write("f", std::string(10'000, 'x'));
  const MappedFile file = OpenOk(path);
  std::filesystem::resize_file(path, 10);
  std::vector<std::byte> out(100);
  const absl::Status status = file.ReadAt(5'000, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("it had 10000 bytes when it was opened"));
}

TEST(MappedFileTest, ReadAtSaysThatTheFileWasWrittenTo) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "hello");
  const MappedFile file = OpenOk(path);
  std::byte out[5];
  ASSERT_TRUE(file.ReadAt(0, out).ok());
  EXPECT_TRUE(file.CheckUnchanged().ok());
  folder.Write("f", "HELLO");
  // Whatever the resolution of the file system's clock.
  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  const absl::Status status = file.ReadAt(0, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was written to since it was opened"));
  EXPECT_EQ(file.CheckUnchanged(), status);
}

TEST(MappedFileTest, AReplacedFileIsReadAsItWas) {
  const TempFolder folder;
  const std::string path = folder.Write("f", "hello");
  const MappedFile file = OpenOk(path);
  std::filesystem::rename(folder.Write("g", "other"), path);
  std::string out(5, '\0');
  ASSERT_TRUE(file.ReadAt(0, std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(out, "hello");
}

TEST(MappedFileTest, ManyThreadsRead) {
  const TempFolder folder;
  std::string content;
  for (int i = 0; i < 1000; ++i) content.append(64, static_cast<char>('a' + i % 26));
  const MappedFile file = OpenOk(folder.Write("f", content));
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::string out(64, '\0');
      for (std::size_t i = static_cast<std::size_t>(t); i < 1000; i += 4) {
        ASSERT_TRUE(file.ReadAt(i * 64, std::as_writable_bytes(std::span(out))).ok());
        ASSERT_EQ(out, content.substr(i * 64, 64));
      }
    });
  }
}

}  // namespace
}  // namespace distorch
