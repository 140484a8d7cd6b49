#include "client/ctl/handles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace distorch::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

void Add(v1::ListModelsResponse& loaded, const std::string& ckpt_name, const std::string& suffix,
         const std::string& state = "READY") {
  for (const char* kind : {"model", "clip", "vae"}) {
    v1::ModelInfo& model = *loaded.add_models();
    model.set_handle(std::string(kind) + suffix);
    model.set_kind(kind);
    model.set_ckpt_name(ckpt_name);
    model.set_state(state);
  }
}

HandleFlags Wanted(const std::string& ckpt_name = "") {
  return {.handles = {{"model", ""}, {"clip", ""}, {"vae", ""}}, .ckpt_name = ckpt_name};
}

TEST(FillHandlesTest, TheOnlyCheckpointNeedsNoName) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a");
  Add(loaded, "b", "-b", "LOADING");
  HandleFlags flags = Wanted();
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_THAT(flags.handles,
              ElementsAre(Pair("clip", "clip-a"), Pair("model", "model-a"), Pair("vae", "vae-a")));
}

TEST(FillHandlesTest, WhatIsStoredCountsWhereNothingIsReady) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a", "STORED");
  HandleFlags flags = Wanted();
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_EQ(flags.handles["model"], "model-a");

  Add(loaded, "b", "-b");
  Add(loaded, "b", "-evicted", "STORED");
  loaded.mutable_models(5)->set_state("STORED");  // the VAE of b
  loaded.mutable_models()->DeleteSubrange(8, 1);  // and it has no other
  flags = Wanted();
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_THAT(flags.handles,
              ElementsAre(Pair("clip", "clip-b"), Pair("model", "model-b"), Pair("vae", "vae-b")));
  flags = Wanted("a");
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_EQ(flags.handles["model"], "model-a");
}

TEST(FillHandlesTest, NameChoosesAmongSeveral) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a");
  Add(loaded, "b", "-b");
  HandleFlags flags = Wanted("b");
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_EQ(flags.handles["model"], "model-b");

  flags = Wanted();
  absl::Status status = FillHandles(loaded, flags);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(a, b): choose one with --ckpt_name"));

  flags = Wanted("c");
  EXPECT_EQ(FillHandles(loaded, flags).code(), absl::StatusCode::kNotFound);
}

TEST(FillHandlesTest, AGivenHandleTellsTheCheckpointAndStays) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a");
  Add(loaded, "b", "-b");
  HandleFlags flags = Wanted();
  flags.handles["model"] = "model-b";
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_THAT(flags.handles,
              ElementsAre(Pair("clip", "clip-b"), Pair("model", "model-b"), Pair("vae", "vae-b")));

  flags = Wanted("a");  // the model of one with the rest of another
  flags.handles["model"] = "model-b";
  ASSERT_TRUE(FillHandles(loaded, flags).ok());
  EXPECT_THAT(flags.handles,
              ElementsAre(Pair("clip", "clip-a"), Pair("model", "model-b"), Pair("vae", "vae-a")));
}

TEST(FillHandlesTest, VariantsOfOneCheckpointMustBeChosenAmong) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a");
  v1::ModelInfo& patched = *loaded.add_models();
  patched = loaded.models(0);
  patched.set_handle("model-lora");
  HandleFlags flags = Wanted();
  absl::Status status = FillHandles(loaded, flags);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("(model-a, model-lora): choose one with --model"));
  flags = Wanted();
  flags.handles["model"] = "model-lora";
  EXPECT_TRUE(FillHandles(loaded, flags).ok());
}

TEST(FillHandlesTest, NothingLoadedSaysWhatToDo) {
  HandleFlags flags = Wanted();
  absl::Status status = FillHandles({}, flags);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("distorchctl load"));
}

TEST(FillHandlesTest, CheckpointWithoutAVaeIsNotFound) {
  v1::ListModelsResponse loaded;
  Add(loaded, "a", "-a");
  loaded.mutable_models()->RemoveLast();
  HandleFlags flags = Wanted();
  absl::Status status = FillHandles(loaded, flags);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no vae of 'a'"));
}

}  // namespace
}  // namespace distorch::ctl
