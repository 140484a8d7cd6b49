#include "lib/serving/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class Warnings : public Observer {
 public:
  void Warning(std::string_view message) override { said.emplace_back(message); }
  std::vector<std::string> said;
};

StoredHandle Recipe(const std::string& handle) {
  StoredHandle stored;
  stored.handle = handle;
  stored.kind = "clip";
  stored.family = "sdxl";
  stored.load.ckpt_name = "a b/\"quoted\".safetensors";
  stored.load.unet_virtual_vram_gb = 1.0 / 3;
  stored.load.unet_expert_mode_allocations = "auto";
  stored.load.high_precision_loras = false;
  stored.load.lease_seconds = int64_t{1} << 40;
  stored.fingerprint = "sha256:0123";
  stored.root = stored.base = "clip-root";
  stored.request = "clip|…";
  stored.split = {{"cuda:0", "cpu"}, {0, 1, 1}, {0}};
  AddStep({"add.safetensors", -0.1}, &stored);
  AddStep({.lora_name = "", .stop_at_layer = -2}, &stored);
  return stored;
}

class StateStoreTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<StateStore>> Open() {
    return StateStore::Open(folder_.path() + "/state", &warnings_);
  }
  std::string File() const { return folder_.path() + "/state/state.db"; }

  TempFolder folder_;
  Warnings warnings_;
};

TEST_F(StateStoreTest, KeepsHandlesAsTheyWere) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_THAT((*store)->All(), IsEmpty());
    (*store)->Put(Recipe("clip-a"));
    (*store)->Put(Recipe("clip-b"));
    (*store)->Put(Recipe("clip-b"));
    (*store)->Put(Recipe("clip-c"));
    (*store)->Remove({"clip-a", "clip-x"});
  }
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const std::vector<StoredHandle> all = (*store)->All();
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].handle, "clip-b");
  EXPECT_EQ(all[1].handle, "clip-c");
  EXPECT_EQ(ToJson(all[0]), ToJson(Recipe("clip-b")));
  EXPECT_EQ(*all[0].load.unet_virtual_vram_gb, 1.0 / 3);
  EXPECT_EQ(all[0].load.unet_compute_device, std::nullopt);
  EXPECT_EQ(all[0].load.lease_seconds, int64_t{1} << 40);
  EXPECT_THAT(warnings_.said, IsEmpty());
}

TEST_F(StateStoreTest, OneDaemonAtATime) {
  auto first = Open();
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = Open().status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr("another daemon uses it"));
}

TEST_F(StateStoreTest, ABrokenFileIsSetAside) {
  std::filesystem::create_directories(folder_.path() + "/state");
  std::ofstream(File()) << std::string(5000, 'x');
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  (*store)->Put(Recipe("clip-a"));
  ASSERT_THAT(warnings_.said, SizeIs(1));
  EXPECT_THAT(warnings_.said[0], HasSubstr("set aside"));
  int aside = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder_.path() + "/state"))
    aside += file.path().filename().string().find(".broken-") != std::string::npos ? 1 : 0;
  EXPECT_EQ(aside, 1);
}

TEST_F(StateStoreTest, PagesOverwrittenAreNoticed) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    for (int i = 0; i < 200; ++i) (*store)->Put(Recipe("clip-" + std::to_string(i)));
  }
  {
    std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(8192, '\xff');
  }
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_THAT((*store)->All(), IsEmpty());
  EXPECT_THAT(warnings_.said, SizeIs(1));
}

TEST_F(StateStoreTest, ANewerFileIsLeftAlone) {
  ASSERT_TRUE(Open().ok());
  {
    std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(63);  // user_version, the last of its four bytes
    file.put(9);
  }
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("schema 9"));
  EXPECT_THAT(warnings_.said, IsEmpty());
}

TEST_F(StateStoreTest, AFolderThatCannotBeIsAnError) {
  std::ofstream(folder_.path() + "/state") << "a file";
  EXPECT_THAT(Open().status().message(), HasSubstr("--state_dir"));
}

TEST(StoredHandleTest, RefusesWhatIsNoRecipe) {
  const std::string good = ToJson(Recipe("clip-a"));
  EXPECT_TRUE(StoredHandleFromJson(good).ok());
  for (const char* bad : {"", "[]", "{}", "{\"handle\": 3}", "null"})
    EXPECT_EQ(StoredHandleFromJson(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  EXPECT_FALSE(StoredHandleFromJson(good.substr(0, good.size() / 2)).ok());
}

TEST(StoredHandleTest, OfClipSkipsInARowTheLastCounts) {
  StoredHandle stored = Recipe("clip-a");
  AddStep({.lora_name = "", .stop_at_layer = -3}, &stored);
  ASSERT_THAT(stored.steps, SizeIs(2));
  EXPECT_EQ(stored.steps.back().stop_at_layer, -3);
}

}  // namespace
}  // namespace distorch
