#include "client/ctl/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace distorch::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string TempPath(const std::string& name) { return testing::TempDir() + "/" + name; }

TEST(ImageNamesTest, NumbersOnlyBatches) {
  EXPECT_THAT(ImageNames("a/b.png", 1), ElementsAre("a/b.png"));
  EXPECT_THAT(ImageNames("a.b/c.d.png", 2), ElementsAre("a.b/c.d-0.png", "a.b/c.d-1.png"));
  EXPECT_THAT(ImageNames("b.png", 0), ElementsAre());
}

TEST(PreviewNameTest, StandsBesideTheOutput) {
  EXPECT_EQ(PreviewName("out/b.png", 7), "out/b-preview-007.png");
  EXPECT_EQ(PreviewName("out/b.webp", 7), "out/b-preview-007.png");
}

TEST(FormatOfTest, FollowsTheExtension) {
  EXPECT_EQ(FormatOf("a.PNG").value(), "png");
  EXPECT_EQ(FormatOf("a.jpg").value(), "jpeg");
  EXPECT_EQ(FormatOf("a.jpeg").value(), "jpeg");
  EXPECT_EQ(FormatOf("a.b/c.webp").value(), "webp");
  EXPECT_EQ(FormatOf("a.bmp").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ExtensionOf("png"), ".png");
  EXPECT_EQ(ExtensionOf("jpeg"), ".jpg");
  EXPECT_EQ(ExtensionOf("webp"), ".webp");
}

TEST(CheckOutputTest, WantsANameOfTheFormatInAFolderThatExists) {
  EXPECT_TRUE(CheckOutput("b.png", "png").ok());
  EXPECT_TRUE(CheckOutput(TempPath("b.PNG"), "png").ok());
  EXPECT_TRUE(CheckOutput("b.jpg", "jpeg").ok());
  EXPECT_TRUE(CheckOutput("b.jpeg", "jpeg").ok());
  EXPECT_TRUE(CheckOutput("b.webp", "webp").ok());
  for (const char* bad : {"b.jpg", "b.gif", "b", ".png", "/no/such/folder/b.png"}) {
    absl::Status status = CheckOutput(bad, "png");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad));
  }
}

TEST(FilesTest, BytesComeBackAsWritten) {
  std::string path = TempPath("files_test_bytes.png");
  const std::string bytes("\x89PNG\r\n\x1a\n\0\xff", 10);
  ASSERT_TRUE(WriteFile(path, std::string(1000, 'x')).ok());
  ASSERT_TRUE(WriteFile(path, bytes).ok());
  EXPECT_EQ(*ReadFile(path), bytes);
  std::filesystem::remove(path);
}

TEST(FilesTest, ErrorsNameTheFile) {
  EXPECT_EQ(ReadFile("/no/such").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadFile("/no/such").status().message()), HasSubstr("'/no/such'"));
  EXPECT_EQ(ReadFile("/").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteFile("/no/such", "x").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WriteFile("/dev/full", std::string(1 << 20, 'x')).ok());
}

}  // namespace
}  // namespace distorch::ctl
