#include "lib/serving/checkpoint_folders.h"

#include <filesystem>
#include <string>
#include <string_view>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ModelFoldersTest : public ::testing::Test {
 protected:
  std::string Root(std::string_view name = "root") const {
    return folder_.path() + "/" + std::string(name);
  }
  ModelFolders Folders() const { return ModelFolders("checkpoint", {Root()}); }

  // The error's message; it must be INVALID_ARGUMENT.
  std::string Rejected(std::string_view name) const {
    const absl::Status status = Folders().Resolve(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }
  std::string NotFound(std::string_view name) const {
    const absl::Status status = Folders().Resolve(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    return std::string(status.message());
  }

  const TempFolder folder_;
};

TEST_F(ModelFoldersTest, ListsModelFilesOfSubfoldersSorted) {
  folder_.Write("root/b.safetensors", "");
  folder_.Write("root/a/deep/er/c.CKPT", "");
  folder_.Write("root/a/x.gguf", "");
  folder_.Write("root/readme.txt", "");
  folder_.Write("root/a.safetensors.part", "");
  fs::create_directories(Root() + "/folder.safetensors");
  EXPECT_THAT(Folders().List(), ElementsAre("a/deep/er/c.CKPT", "a/x.gguf", "b.safetensors"));
}

TEST_F(ModelFoldersTest, ListsDiffusersFoldersAndShardedModelsOnce) {
  folder_.Write("root/sub/sdxl/model_index.json", "{}");
  folder_.Write("root/sub/sdxl/unet/diffusion_pytorch_model.safetensors", "");
  folder_.Write("root/flux.safetensors.index.json", "{}");
  folder_.Write("root/flux-00001-of-00002.safetensors", "");
  folder_.Write("root/flux-00002-of-00002.safetensors", "");
  folder_.Write("root/alone-00001-of-00001.safetensors", "");
  folder_.Write("root/other.index.json", "{}");
  EXPECT_THAT(Folders().List(), ElementsAre("alone-00001-of-00001.safetensors",
                                            "flux.safetensors.index.json", "sub/sdxl"));
  EXPECT_EQ(Folders().Resolve("sub/sdxl").value_or(""), Root() + "/sub/sdxl");
  EXPECT_EQ(Folders().Resolve("flux.safetensors.index.json").value_or(""),
            Root() + "/flux.safetensors.index.json");
  EXPECT_EQ(Folders().Resolve("flux-00001-of-00002.safetensors").value_or(""),
            Root() + "/flux-00001-of-00002.safetensors");
  EXPECT_THAT(NotFound("sub"), HasSubstr("there is no checkpoint 'sub'"));
}

TEST_F(ModelFoldersTest, ListsEveryExtensionOfComfyUI) {
  for (const char* extension :
       {"safetensors", "sft", "ckpt", "pt", "pt2", "pth", "bin", "pkl", "gguf"}) {
    folder_.Write(std::string("root/m.") + extension, "");
  }
  EXPECT_EQ(Folders().List().size(), 9);
}

TEST_F(ModelFoldersTest, MissingRootIsEmpty) {
  EXPECT_THAT(Folders().List(), IsEmpty());
  EXPECT_THAT(ModelFolders("lora", {}).List(), IsEmpty());
}

TEST_F(ModelFoldersTest, SymbolicLinksToFoldersAreFollowed) {
  folder_.Write("elsewhere/m.safetensors", "");
  folder_.Write("root/own.safetensors", "");
  fs::create_directory_symlink(folder_.path() + "/elsewhere", Root() + "/link");
  fs::create_symlink(folder_.path() + "/elsewhere/m.safetensors", Root() + "/file.safetensors");
  fs::create_symlink("nowhere", Root() + "/broken.safetensors");
  EXPECT_THAT(Folders().List(),
              ElementsAre("file.safetensors", "link/m.safetensors", "own.safetensors"));
  EXPECT_EQ(Folders().Resolve("link/m.safetensors").value(), Root() + "/link/m.safetensors");
}

TEST_F(ModelFoldersTest, LoopsOfSymbolicLinksEnd) {
  folder_.Write("root/z/m.safetensors", "");
  fs::create_directory_symlink("..", Root() + "/z/up");
  fs::create_directory_symlink("z", Root() + "/a");
  fs::create_directory_symlink("self", Root() + "/self");
  // The folder goes by its own name, although a link to it sorts before.
  EXPECT_THAT(Folders().List(), ElementsAre("z/m.safetensors"));
}

TEST_F(ModelFoldersTest, FirstOfTwoRootsWins) {
  const std::string first = folder_.Write("one/sub/m.safetensors", "1");
  folder_.Write("two/sub/m.safetensors", "2");
  const std::string other = folder_.Write("two/n.safetensors", "2");
  const ModelFolders folders("checkpoint", {Root("one"), Root("two")});
  EXPECT_THAT(folders.List(), ElementsAre("n.safetensors", "sub/m.safetensors"));
  EXPECT_EQ(folders.Resolve("sub/m.safetensors").value(), first);
  EXPECT_EQ(folders.Resolve("n.safetensors").value(), other);
}

TEST_F(ModelFoldersTest, EveryListedNameResolves) {
  folder_.Write("root/plain.safetensors", "");
  folder_.Write("root/日本/模型 1.safetensors", "");
  folder_.Write("root/..dots/..m.ckpt", "");
  folder_.Write("root/back\\slash.safetensors", "");
  folder_.Write("root/latin\xe9.safetensors", "");
  EXPECT_THAT(Folders().List(),
              ElementsAre("..dots/..m.ckpt", "plain.safetensors", "日本/模型 1.safetensors"));
  for (const std::string& name : Folders().List()) {
    const auto path = Folders().Resolve(name);
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_TRUE(fs::exists(*path));
  }
}

TEST_F(ModelFoldersTest, RejectsNamesThatEscape) {
  folder_.Write("root/m.safetensors", "");
  folder_.Write("secret.safetensors", "");
  EXPECT_THAT(Rejected("../secret.safetensors"),
              AllOf(HasSubstr("checkpoint '../secret.safetensors'"), HasSubstr("component '..'")));
  EXPECT_THAT(Rejected("a/../../secret.safetensors"), HasSubstr("component '..'"));
  EXPECT_THAT(Rejected(".."), HasSubstr("component '..'"));
  EXPECT_THAT(Rejected("m.safetensors/.."), HasSubstr("component '..'"));
}

TEST_F(ModelFoldersTest, RejectsAbsoluteNames) {
  EXPECT_THAT(Rejected(folder_.Write("root/m.safetensors", "")), HasSubstr("not an absolute path"));
}

TEST_F(ModelFoldersTest, RejectsNul) {
  folder_.Write("root/m.safetensors", "");
  EXPECT_THAT(Rejected(std::string_view("m.safetensors\0.txt", 18)), HasSubstr("NUL"));
}

TEST_F(ModelFoldersTest, RejectsBackslash) {
  EXPECT_THAT(Rejected("sub\\m.safetensors"), HasSubstr("folders are separated by '/'"));
}

TEST_F(ModelFoldersTest, RejectsEmptyAndNotUtf8) {
  EXPECT_THAT(Rejected(""), HasSubstr("must not be empty"));
  EXPECT_THAT(Rejected("\xff.safetensors"), HasSubstr("must be UTF-8"));
}

TEST_F(ModelFoldersTest, FolderIsNotFound) {
  folder_.Write("root/sub/m.safetensors", "");
  NotFound("sub");
  NotFound("sub/");
  NotFound(".");
}

TEST_F(ModelFoldersTest, SuggestsNearNames) {
  for (const char* name :
       {"v1-5-pruned-emaonly.safetensors", "XL/sd_xl_base_1.0.safetensors", "flux1-dev.sft"}) {
    folder_.Write(std::string("root/") + name, "");
  }
  EXPECT_THAT(NotFound("v1-5-pruned-emaonly.ckpt"),
              HasSubstr("did you mean 'v1-5-pruned-emaonly.safetensors'?"));
  EXPECT_THAT(NotFound("sd_xl_base_1.0.safetensors"), HasSubstr("'XL/sd_xl_base_1.0.safetensors'"));
  EXPECT_THAT(NotFound("xl/SD_XL_Base_1.0.safetensors"),
              HasSubstr("'XL/sd_xl_base_1.0.safetensors'"));
  EXPECT_THAT(NotFound("flux1-dve"),
              AllOf(HasSubstr("did you mean 'flux1-dev.sft'?"), Not(HasSubstr("XL"))));
}

TEST_F(ModelFoldersTest, SuggestsTheNearestFiveFirst) {
  for (const char* name : {"checkpoint6.pt", "checkpoint.pt", "checkpoint123.pt", "checkpoint12.pt",
                           "checkpoint1234.pt", "checkpoint7.pt"}) {
    folder_.Write(std::string("root/") + name, "");
  }
  EXPECT_THAT(NotFound("checkpoin.pt"),
              HasSubstr("did you mean 'checkpoint.pt' or 'checkpoint6.pt' or "
                        "'checkpoint7.pt' or 'checkpoint12.pt' or 'checkpoint123.pt'?"));
}

TEST_F(ModelFoldersTest, SaysWhereItLookedWhenNothingIsNear) {
  folder_.Write("root/flux1-dev.sft", "");
  EXPECT_THAT(NotFound("zzz"), HasSubstr("no name of the 1 in " + Root() + " is like it"));
  NotFound(std::string(100'000, 'x'));
}

class FindTest : public testing::Test {
 protected:
  // What `name` stands for in two roots, relative to the folder of both.
  std::string Find(std::string_view name) const {
    static constexpr std::string_view kExtensions[] = {".safetensors", ".pt"};
    const ModelFolders folders("embedding", {folder_.File("a"), folder_.File("b")});
    const auto path = folders.Find(name, kExtensions);
    if (!path.ok()) return std::string(path.status().message());
    return path->substr(folder_.path().size() + 1);
  }

  const TempFolder folder_;
};

TEST_F(FindTest, ExtensionsAndFoldersMayBeLeftOut) {
  folder_.Write("a/style.pt", "");
  folder_.Write("b/deep/er/other.safetensors", "");
  folder_.Write("b/bare", "");
  EXPECT_EQ(Find("style.pt"), "a/style.pt");
  EXPECT_EQ(Find("style"), "a/style.pt");
  EXPECT_EQ(Find("other"), "b/deep/er/other.safetensors");
  EXPECT_EQ(Find("er/other"), "b/deep/er/other.safetensors");
  EXPECT_EQ(Find("bare"), "b/bare");
}

TEST_F(FindTest, RootsComeBeforeFoldersAndEarlierExtensionsFirst) {
  folder_.Write("a/deep/style.safetensors", "");
  folder_.Write("b/style.pt", "");
  EXPECT_EQ(Find("style"), "b/style.pt");
  folder_.Write("b/style.safetensors", "");
  EXPECT_EQ(Find("style"), "b/style.safetensors");
}

TEST_F(FindTest, NamesStayInsideTheFolders) {
  folder_.Write("secret.pt", "");
  folder_.Write("a/style.pt", "");
  for (const char* name : {"../secret", "../secret.pt", "deep/../../secret", "..\\secret", ""}) {
    EXPECT_THAT(Find(name), HasSubstr("must not")) << name;
  }
  EXPECT_THAT(Find(folder_.File("secret.pt")), HasSubstr("must be relative"));
  EXPECT_THAT(Find("tyle"), HasSubstr("did you mean 'style.pt'?"));
}

}  // namespace
}  // namespace distorch
