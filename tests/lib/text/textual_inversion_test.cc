#include "lib/text/textual_inversion.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch::text {
namespace {

using ::testing::HasSubstr;

// A tensor whose values are all `value`.
SafetensorsEntry Entry(std::string name, std::vector<int64_t> shape, float value) {
  SafetensorsEntry entry{std::move(name), DType::kF32, std::move(shape), ""};
  for (uint64_t i = 0; i < entry.bytes(); i += sizeof(value)) {
    entry.data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return entry;
}

absl::StatusOr<at::Tensor> Read(const std::vector<SafetensorsEntry>& entries,
                                std::string_view transformer = "clip_l") {
  const TempFolder folder;
  const std::string path = folder.File("style.safetensors");
  EXPECT_TRUE(WriteSafetensors(path, entries).ok());
  const auto file = CheckpointFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return ReadTextualInversion(**file, transformer);
}

void ExpectVectors(const absl::StatusOr<at::Tensor>& actual, int64_t count, int64_t width,
                   float first, float last) {
  ASSERT_TRUE(actual.ok()) << actual.status();
  EXPECT_EQ(actual->sizes(), at::IntArrayRef({count, width}));
  EXPECT_EQ(actual->scalar_type(), at::kFloat);
  EXPECT_EQ((*actual)[0][0].item<float>(), first);
  EXPECT_EQ((*actual)[count - 1][width - 1].item<float>(), last);
}

TEST(TextualInversionTest, AnyNameWillDoForTheOnlyTensor) {
  ExpectVectors(Read({Entry("emb_params", {3, 8}, 2)}), 3, 8, 2, 2);
  ExpectVectors(Read({Entry("<my-style>", {8}, 2)}), 1, 8, 2, 2);
}

TEST(TextualInversionTest, WebUisComeBeforeOthers) {
  ExpectVectors(Read({Entry("other", {4, 8}, 1), Entry("string_to_param.*", {2, 8}, 3)}), 2, 8, 3,
                3);
}

TEST(TextualInversionTest, EachTransformerHasItsTensor) {
  const std::vector<SafetensorsEntry> both = {Entry("clip_g", {2, 16}, 1),
                                              Entry("clip_l", {2, 8}, 2)};
  ExpectVectors(Read(both, "clip_g"), 2, 16, 1, 1);
  ExpectVectors(Read(both, "clip_l"), 2, 8, 2, 2);
  ExpectVectors(Read(both, "t5xxl"), 2, 16, 1, 1);  // the first, as the reference
}

TEST(TextualInversionTest, BundledOnesAreJoined) {
  ExpectVectors(Read({Entry("a", {1, 8}, 9), Entry("bundle_emb.x.string_to_param.*", {2, 8}, 1),
                      Entry("bundle_emb.y.string_to_param.*", {1, 8}, 2)}),
                3, 8, 1, 2);
  ExpectVectors(
      Read({Entry("bundle_emb.x.clip_g", {2, 16}, 1), Entry("bundle_emb.x.clip_l", {2, 8}, 2)}), 2,
      8, 2, 2);
}

TEST(TextualInversionTest, WebUisOwnFilesAreRead) {
  const auto file = CheckpointFile::Open(DISTORCH_GOLDEN_DIR "/torch_archive/embedding.pt");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto vectors = ReadTextualInversion(**file, "clip_l");
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  EXPECT_EQ((*vectors)[0][1].item<float>(), 1);
  EXPECT_EQ(vectors->numel(), 6);
}

TEST(TextualInversionTest, OtherTensorsAreRefusedByName) {
  for (const SafetensorsEntry& bad :
       {Entry("cube", {2, 2, 8}, 1), Entry("scalar", {}, 1), Entry("empty", {0, 8}, 1),
        Entry("many", {1025, 1}, 1), Entry("wide", {65537}, 1)}) {
    const auto result = Read({bad});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << bad.name;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(bad.name));
  }
  SafetensorsEntry integers = Entry("ints", {2, 8}, 1);
  integers.dtype = DType::kI32;
  EXPECT_FALSE(Read({integers}).ok());
  EXPECT_FALSE(
      Read({Entry("bundle_emb.x.clip_l", {2, 16}, 1), Entry("bundle_emb.y.clip_l", {2, 8}, 2)})
          .ok());
  EXPECT_FALSE(Read({}).ok());
}

}  // namespace
}  // namespace distorch::text
