// The generator of golden checkpoints against the SHA-256 that the Python one wrote down.
#include "tests/support/golden_checkpoint.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

std::string ReadText(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(GoldenCheckpointTest, WritesTheBytesOfTheManifest) {
  const TempFolder cache;
  const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", cache.path());
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(std::filesystem::file_size(*path), 34379806);
  const auto checkpoint = CheckpointFile::Open(*path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->index().metadata().at("format"), "pt");
}

TEST(GoldenCheckpointTest, SecondCallTakesTheFileThatIsThere) {
  const TempFolder cache;
  const auto first = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", cache.path());
  ASSERT_TRUE(first.ok()) << first.status();
  const auto time = std::filesystem::last_write_time(*first);
  const auto second = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", cache.path());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(std::filesystem::last_write_time(*second), time);
}

TEST(GoldenCheckpointTest, WrongHashLeavesNothing) {
  const TempFolder golden, cache;
  std::string manifest = ReadText(DISTORCH_GOLDEN_DIR "/sd1/manifest.json");
  const auto digest = manifest.find("70163902");
  ASSERT_NE(digest, std::string::npos);
  manifest.replace(digest, 1, "8");
  golden.Write("sd1/manifest.json", manifest);
  EXPECT_EQ(GoldenCheckpoint(golden.path(), "sd1", cache.path()).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(std::filesystem::is_empty(cache.path()));
}

TEST(GoldenCheckpointTest, UnknownFamilyIsNotFound) {
  const TempFolder cache;
  EXPECT_EQ(GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "no_such_family", cache.path()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace distorch
