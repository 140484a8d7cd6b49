// Textual inversions in prompts, through the core.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"
#include "tests/support/temp_folder.h"

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kTextTolerance = 1e-5;
const std::string kExtras = std::string(DISTORCH_GOLDEN_DIR) + "/sd1/extras";

class EmbeddingsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("outside.pt", "");
    folder_.Write("embeddings/broken.pt", "no pickle");
    folder_.Write("embeddings/styles/mystyle.safetensors", "");
    std::filesystem::copy_file(kExtras + "/mystyle.safetensors",
                               folder_.File("embeddings/styles/mystyle.safetensors"),
                               std::filesystem::copy_options::overwrite_existing);
    const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, "sd1", DISTORCH_GOLDEN_CACHE);
    ASSERT_TRUE(path.ok()) << path.status();
    CoreOptions options;
    options.checkpoint_dirs = {DISTORCH_GOLDEN_CACHE};
    options.embedding_dirs = {folder_.File("embeddings")};
    options.simulate_devices = "cuda:0=2GiB";
    options.compute_dtype = "fp32";
    auto core = DaemonCore::Create(options, nullptr);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    client_ = std::make_unique<CoreClient>(core_.get());
    LoadSpec spec;
    spec.ckpt_name = path->substr(path->rfind('/') + 1);
    spec.clip_compute_device = "cuda:0";
    const auto loaded = client_->Load(spec);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *loaded;
  }

  EncodeTextResult Encode(const std::string& text) {
    const auto result = client_->EncodeText({loaded_.clip, text});
    EXPECT_TRUE(result.ok()) << text << ": " << result.status();
    return result.value_or(EncodeTextResult());
  }

  const TempFolder folder_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
  LoadResult loaded_;
};

TEST_F(EmbeddingsTest, EncodeTextEqualsTheReference) {
  const GoldenCase golden(kExtras);
  int compared = 0;
  for (const auto& item : golden.cases()) {
    if (!item.contains("prompt")) continue;
    const EncodeTextResult result = Encode(item["prompt"]);
    EXPECT_LE(RelativeError(result.conditioning.cross_attention, golden.Expected(item["name"])),
              kTextTolerance);
    EXPECT_THAT(result.warnings, IsEmpty());
    ++compared;
  }
  EXPECT_EQ(compared, 1);
}

TEST_F(EmbeddingsTest, WhatCannotBeUsedIsLeftOutWithAWarning) {
  const std::string plain = Encode("a fox").conditioning.cross_attention.data;
  for (const auto& [name, problem] :
       {std::pair{"mystile", "did you mean 'styles/mystyle.safetensors'?"},
        std::pair{"../outside", "must not have a component '..'"},
        std::pair{"/outside.pt", "must be relative"}, std::pair{"broken", "broken.pt"}}) {
    const EncodeTextResult result = Encode(std::string("a embedding:") + name + " fox");
    EXPECT_EQ(result.conditioning.cross_attention.data, plain) << name;
    EXPECT_THAT(result.warnings, ElementsAre(HasSubstr(problem)));
  }
}

TEST_F(EmbeddingsTest, TheIdDependsOnTheFilesContent) {
  const std::string path = folder_.File("embeddings/styles/mystyle.safetensors");
  const std::string prompt = "a embedding:mystyle fox";
  const EncodeTextResult before = Encode(prompt);
  EXPECT_EQ(Encode(prompt).conditioning_id, before.conditioning_id);
  // The last byte of the data is the sign of a value.
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.peek() ^ 0x80);
  file.seekp(-1, std::ios::end).put(last);
  file.close();
  const EncodeTextResult after = Encode(prompt);
  EXPECT_NE(after.conditioning.cross_attention.data, before.conditioning.cross_attention.data);
  EXPECT_NE(after.conditioning_id, before.conditioning_id);
  EXPECT_EQ(Encode("a fox").conditioning_id, Encode("a fox").conditioning_id);
}

TEST_F(EmbeddingsTest, InferWarnsOfBothPrompts) {
  InferSpec spec;
  spec.model = loaded_.model;
  spec.clip = loaded_.clip;
  spec.vae = loaded_.vae;
  spec.prompt = "a embedding:none fox embedding:mystyle";
  spec.negative_prompt = "embedding:no";
  spec.width = spec.height = 64;
  spec.options.steps = 1;
  const auto result = client_->Infer(spec);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("'no'"), HasSubstr("'none'")));
}

}  // namespace
}  // namespace distorch
