#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/serving/checkpoint_folders.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ExtraModelPaths Parse(const std::string& yaml) {
  const auto paths = ParseExtraModelPaths(yaml, "/conf/extra_model_paths.yaml");
  EXPECT_TRUE(paths.ok()) << paths.status();
  return paths.value_or(ExtraModelPaths());
}

std::string Error(const std::string& yaml) {
  const absl::Status status = ParseExtraModelPaths(yaml, "/conf/extra.yaml").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("'/conf/extra.yaml', line "));
  return std::string(status.message());
}

TEST(ExtraModelPathsTest, ReadsTheFileThatComfyUIsUsersHave) {
  const ExtraModelPaths paths = Parse(R"(
#config for a1111 ui
a111:
    base_path: /srv/stable-diffusion-webui/

    checkpoints: models/Stable-diffusion
    configs: models/Stable-diffusion
    vae: models/VAE
    loras: |
         models/Lora
         models/LyCORIS
    embeddings: embeddings
    vae_approx: models/VAE-approx
other_ui:
    base_path: /srv/ui
    checkpoints: models/checkpoints/
    custom_nodes: path/custom_nodes
)");
  EXPECT_THAT(paths.checkpoints, ElementsAre("/srv/stable-diffusion-webui/models/Stable-diffusion",
                                             "/srv/ui/models/checkpoints"));
  EXPECT_THAT(paths.loras, ElementsAre("/srv/stable-diffusion-webui/models/Lora",
                                       "/srv/stable-diffusion-webui/models/LyCORIS"));
  EXPECT_THAT(paths.embeddings, ElementsAre("/srv/stable-diffusion-webui/embeddings"));
  EXPECT_THAT(paths.vae_approx, ElementsAre("/srv/stable-diffusion-webui/models/VAE-approx"));
}

TEST(ExtraModelPathsTest, MultiLineListsSkipBlankLinesAndSpaces) {
  EXPECT_THAT(Parse("a:\n  checkpoints: \"/x\\r\\n\\n   /y  \\n\"\n").checkpoints,
              ElementsAre("/x", "/y"));
}

TEST(ExtraModelPathsTest, DefaultEntriesComeFirst) {
  const std::string yaml = R"(
a: {checkpoints: /a}
b: {checkpoints: /b, is_default: true}
c: {checkpoints: /c, is_default: false}
d: {checkpoints: "/d\n/e", is_default: yes}
)";
  EXPECT_THAT(Parse(yaml).checkpoints, ElementsAre("/b", "/d", "/e", "/a", "/c"));
}

TEST(ExtraModelPathsTest, RelativePathsStartAtBasePathOrTheFile) {
  EXPECT_THAT(Parse("a: {checkpoints: models}").checkpoints, ElementsAre("/conf/models"));
  EXPECT_THAT(Parse("a: {base_path: ../ui, checkpoints: models}").checkpoints,
              ElementsAre("/ui/models"));
  EXPECT_THAT(Parse("a: {checkpoints: ./m/../models/, base_path: ui}").checkpoints,
              ElementsAre("/conf/ui/models"));
  EXPECT_THAT(Parse("a: {base_path: /ui, checkpoints: /other}").checkpoints, ElementsAre("/other"));
  EXPECT_THAT(Parse("a: {base_path: /ui, checkpoints: .}").checkpoints, ElementsAre("/ui"));
  EXPECT_THAT(Parse("a: {checkpoints: /}").checkpoints, ElementsAre("/"));
}

TEST(ExtraModelPathsTest, HomeAndVariablesAreExpanded) {
  setenv("HOME", "/home/me", 1);
  setenv("DISTORCH_TEST_DISK", "/mnt/disk", 1);
  unsetenv("DISTORCH_TEST_UNSET");
  EXPECT_THAT(Parse("a: {base_path: ~/ui, checkpoints: m}").checkpoints,
              ElementsAre("/home/me/ui/m"));
  EXPECT_THAT(Parse("a: {checkpoints: \"~\"}").checkpoints, ElementsAre("/home/me"));
  EXPECT_THAT(Parse("a: {checkpoints: $DISTORCH_TEST_DISK/m}").checkpoints,
              ElementsAre("/mnt/disk/m"));
  EXPECT_THAT(Parse("a: {checkpoints: \"${DISTORCH_TEST_DISK}2/m\"}").checkpoints,
              ElementsAre("/mnt/disk2/m"));
  EXPECT_THAT(Parse("a: {checkpoints: \"/x/$DISTORCH_TEST_UNSET/$/${/${}/a$\"}").checkpoints,
              ElementsAre("/x/$DISTORCH_TEST_UNSET/$/${/${}/a$"));
}

TEST(ExtraModelPathsTest, EachFolderComesOnce) {
  EXPECT_THAT(Parse("a: {checkpoints: \"/x\\n/x/\\n/y/../x\"}\nb: {checkpoints: /x}").checkpoints,
              ElementsAre("/x"));
}

TEST(ExtraModelPathsTest, EmptyEntriesAndFilesAreAllowed) {
  for (const char* yaml : {"", "# nothing\n", "a:\n", "a:\n  checkpoints:\n",
                           "a: {base_path: , vae: [1, {b: c}], ? [k] : v}"}) {
    EXPECT_THAT(Parse(yaml).checkpoints, IsEmpty()) << yaml;
  }
}

TEST(ExtraModelPathsTest, RejectsWhatIsNotYaml) {
  EXPECT_THAT(Error("a: {checkpoints: /x\nb: c"), HasSubstr("line "));
  EXPECT_THAT(Error("\ta: b"), HasSubstr("line 1"));
  EXPECT_THAT(Error("a: *nowhere"), HasSubstr("line 1"));
  EXPECT_THAT(Error(std::string(100'000, '[')), HasSubstr("line 1"));
}

TEST(ExtraModelPathsTest, RejectsOtherShapesWithTheLine) {
  EXPECT_THAT(Error("just text"), HasSubstr("line 1: must be a map of named entries"));
  EXPECT_THAT(Error("- a\n- b"), HasSubstr("line 1: must be a map"));
  EXPECT_THAT(Error("a: {}\nb: /models"), HasSubstr("line 2: entry 'b' must be a map"));
  EXPECT_THAT(
      Error("a:\n  checkpoints:\n    - /x\n"),
      AllOf(HasSubstr("line 3: checkpoints must be a string"), HasSubstr("'checkpoints: |'")));
  EXPECT_THAT(Error("a:\n  base_path: {}\n"), HasSubstr("line 2: base_path must be a string"));
  EXPECT_THAT(Error("a:\n  is_default: perhaps\n"),
              HasSubstr("line 2: is_default must be true or false"));
  EXPECT_THAT(Error("a:\n  loras: \"a\\0b\"\n"), HasSubstr("line 2: a NUL in loras"));
}

TEST(ExtraModelPathsTest, ReadsFromDisk) {
  const TempFolder folder;
  const std::string path = folder.Write("extra.yaml", "a:\n  checkpoints: models\n");
  const auto paths = ReadExtraModelPaths(path);
  ASSERT_TRUE(paths.ok()) << paths.status();
  EXPECT_THAT(paths->checkpoints, ElementsAre(folder.path() + "/models"));
  EXPECT_EQ(ReadExtraModelPaths(folder.File("none")).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace distorch
