#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/distorch/transfer_meter.h"
#include "lib/text/clip_text_encoders.h"
#include "lib/text/clip_tokenizer.h"
#include "lib/text/t5_text_encoders.h"

namespace distorch::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

nn::ClipTextConfig SmallClip() {
  nn::ClipTextConfig config;
  config.width = config.projection = 64;
  config.heads = 1;
  config.layers = 2;
  config.feed_forward = 64;
  return config;
}

nn::T5Config SmallT5(int64_t width) {
  return {.vocabulary = 32128,
          .width = width,
          .layers = 2,
          .heads = 2,
          .head_channels = 16,
          .feed_forward = 64};
}

// Encoders with random weights; what the file lacks does not matter to them.
class TextEncoderTest : public testing::Test {
 protected:
  template <typename Encoder>
  void Fill(Encoder* encoder) {
    at::manual_seed(3);
    for (const auto& slot : encoder->store().slots()) {
      std::vector<at::Tensor> tensors;
      for (const Param& param : slot->params()) {
        // T5 XXL's table of half a GiB need not be random.
        constexpr int64_t kLarge = 1 << 25;
        tensors.push_back(param.elements() > kLarge ? at::full({1}, 0.3).expand(param.shape)
                                                    : at::randn(param.shape).mul_(0.3));
      }
      const size_t count = tensors.size();
      slot->Fill(std::move(tensors), std::vector<StorageFormat>(count), &meter_);
    }
    encoder->set_compute({});
  }
  at::Tensor Row(const TextEncoder& encoder, std::string_view slot_name, int64_t row) {
    for (const auto& slot : encoder.store().slots()) {
      if (slot->name() == slot_name) return slot->stored()[0][row].clone();
    }
    ADD_FAILURE() << "no slot " << slot_name;
    return {};
  }

  const NamedTensors no_tensors_;
  TransferMeter meter_{{*ParseDeviceId("cpu")}};
};

class FakeEmbeddings : public EmbeddingSource {
 public:
  absl::StatusOr<at::Tensor> Load(std::string_view name, std::string_view transformer) override {
    const auto found = vectors.find(absl::StrCat(name, "@", transformer));
    if (found == vectors.end()) return absl::NotFoundError("there is none");
    return found->second;
  }
  void Ignored(std::string_view name, const absl::Status& why) override {
    ignored.push_back(absl::StrCat(name, ": ", why.message()));
  }

  std::map<std::string, at::Tensor> vectors;
  std::vector<std::string> ignored;
};

constexpr std::string_view kClipTokens = "clip_l.transformer.text_model.embeddings.token_embedding";

at::Tensor States(const TextEncoder& encoder, std::string_view prompt, EmbeddingSource* source) {
  const auto conditioning = encoder.Encode(prompt, kFamilysLayer, source);
  EXPECT_TRUE(conditioning.ok()) << conditioning.status();
  return conditioning.ok() ? conditioning->cross_attention : at::Tensor();
}

TEST_F(TextEncoderTest, VectorsStandWhereTheirTokensWould) {
  Sd1TextEncoder encoder(&no_tensors_, SmallClip());
  Fill(&encoder);
  FakeEmbeddings embeddings;
  const std::vector<int> ids = ClipTokenizer::Get().Encode("red fox");
  embeddings.vectors["style@clip_l"] =
      at::stack({Row(encoder, kClipTokens, ids[0]), Row(encoder, kClipTokens, ids[1])});
  for (const auto& [named, spelt] : std::vector<std::pair<std::string, std::string>>{
           {"a embedding:style in snow", "a red fox in snow"},
           {"embedding:style, snow", "red fox, snow"},
           {"a (embedding:style:1.3) embedding:style", "a (red fox:1.3) red fox"},
           {"a\nembedding:style", "a red fox"}}) {
    SCOPED_TRACE(named);
    EXPECT_TRUE(at::equal(States(encoder, named, &embeddings), States(encoder, spelt, nullptr)));
  }
  EXPECT_THAT(embeddings.ignored, IsEmpty());
}

TEST_F(TextEncoderTest, AMissingEmbeddingIsLeftOutAndTold) {
  Sd1TextEncoder encoder(&no_tensors_, SmallClip());
  Fill(&encoder);
  FakeEmbeddings embeddings;
  EXPECT_TRUE(at::equal(States(encoder, "a fox embedding:none, in snow", &embeddings),
                        States(encoder, "a fox, in snow", nullptr)));
  EXPECT_THAT(embeddings.ignored, ElementsAre("none: there is none"));
}

TEST_F(TextEncoderTest, VectorsOfAnotherWidthAreLeftOutAndTold) {
  Sd1TextEncoder encoder(&no_tensors_, SmallClip());
  Fill(&encoder);
  FakeEmbeddings embeddings;
  embeddings.vectors["wide@clip_l"] = at::zeros({2, 96});
  EXPECT_TRUE(at::equal(States(encoder, "a embedding:wide fox", &embeddings),
                        States(encoder, "a fox", nullptr)));
  ASSERT_EQ(embeddings.ignored.size(), 1u);
  EXPECT_THAT(embeddings.ignored[0], HasSubstr("96"));
  EXPECT_THAT(embeddings.ignored[0], HasSubstr("64"));
}

TEST_F(TextEncoderTest, EachTransformerHasItsOwnVectors) {
  SdxlTextEncoder encoder(&no_tensors_, SmallClip(), SmallClip());
  Fill(&encoder);
  FakeEmbeddings embeddings;
  const int fox = ClipTokenizer::Get().Encode("fox")[0];
  embeddings.vectors["style@clip_l"] = Row(encoder, kClipTokens, fox).unsqueeze(0);
  embeddings.vectors["style@clip_g"] =
      Row(encoder, "clip_g.transformer.text_model.embeddings.token_embedding", fox).unsqueeze(0);
  EXPECT_TRUE(at::equal(States(encoder, "a embedding:style", &embeddings),
                        States(encoder, "a fox", nullptr)));
}

TEST_F(TextEncoderTest, ALongEmbeddingNamedOftenIsRefused) {
  Sd1TextEncoder encoder(&no_tensors_, SmallClip());
  Fill(&encoder);
  FakeEmbeddings embeddings;
  embeddings.vectors["long@clip_l"] = at::zeros({1000, 64});
  std::string prompt = "a";
  for (int i = 0; i < 10; ++i) absl::StrAppend(&prompt, " embedding:long");
  const auto result = encoder.Encode(prompt, kFamilysLayer, &embeddings);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("too long"));
}

TEST_F(TextEncoderTest, PromptsWithoutEndAreRefused) {
  FluxTextEncoder encoder(&no_tensors_, SmallClip(), SmallT5(32));
  Fill(&encoder);
  std::string prompt;
  for (int i = 0; i < 3000; ++i) absl::StrAppend(&prompt, "fox ");
  const auto result = encoder.Encode(prompt, kFamilysLayer, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TextEncoderTest, LayersAreCountedFromTheWholeModelsEnd) {
  nn::ClipTextConfig config = SmallClip();
  config.layers = 3;
  Sd2TextEncoder whole(&no_tensors_, config);
  Fill(&whole);
  config.layers = 2;
  config.absent_layers = 1;
  Sd2TextEncoder cut(&no_tensors_, config);
  for (const auto& slot : cut.store().slots()) {
    const auto& slots = whole.store().slots();
    const auto same = std::find_if(slots.begin(), slots.end(), [&](const auto& other) {
      return other->name() == slot->name();
    });
    ASSERT_NE(same, slots.end()) << slot->name();
    std::vector<at::Tensor> stored = (*same)->stored();
    const size_t count = stored.size();
    slot->Fill(std::move(stored), std::vector<StorageFormat>(count), &meter_);
  }
  cut.set_compute({});
  for (const int layer : {kFamilysLayer, -2, -3}) {
    const auto from_whole = whole.Encode("a red fox", layer, nullptr);
    const auto from_cut = cut.Encode("a red fox", layer, nullptr);
    ASSERT_TRUE(from_whole.ok() && from_cut.ok()) << from_whole.status() << from_cut.status();
    EXPECT_TRUE(at::equal(from_whole->cross_attention, from_cut->cross_attention)) << layer;
  }
  const auto family = whole.Encode("a red fox", kFamilysLayer, nullptr);
  const auto earlier = whole.Encode("a red fox", -3, nullptr);
  EXPECT_FALSE(at::equal(family->cross_attention, earlier->cross_attention));
}

TEST_F(TextEncoderTest, ClipSkipBeyondTheLayersIsTheLast) {
  Sd2TextEncoder encoder(&no_tensors_, SmallClip());
  Fill(&encoder);
  const auto at_layer = [&](int layer) {
    return encoder.Encode("a fox", layer, nullptr)->cross_attention;
  };
  EXPECT_TRUE(at::equal(at_layer(kFamilysLayer), at_layer(-2)));
  EXPECT_TRUE(at::equal(at_layer(-1), at_layer(-3)));
  EXPECT_FALSE(at::equal(at_layer(-1), at_layer(-2)));
}

TEST_F(TextEncoderTest, Sd3TakesAnySubset) {
  const auto shape_of = [&](const Sd3TextEncoder::Configs& configs) {
    Sd3TextEncoder encoder(&no_tensors_, configs);
    Fill(&encoder);
    const auto result = encoder.Encode("a (fox:1.2)", kFamilysLayer, nullptr);
    EXPECT_TRUE(result.ok()) << result.status();
    std::vector<int64_t> sizes = result->cross_attention.sizes().vec();
    sizes.push_back(result->pooled.size(1));
    return sizes;
  };
  const nn::ClipTextConfig clip = SmallClip();
  EXPECT_THAT(shape_of({clip, clip, {}}), ElementsAre(1, 77, 4096, 128));
  EXPECT_THAT(shape_of({clip, {}, {}}), ElementsAre(1, 77, 4096, 64 + 1280));
  EXPECT_THAT(shape_of({{}, clip, {}}), ElementsAre(1, 77, 4096, 768 + 64));
  EXPECT_THAT(shape_of({{}, {}, SmallT5(32)}), ElementsAre(1, 77, 32, 768 + 1280));
  EXPECT_THAT(shape_of({clip, clip, SmallT5(4096)}), ElementsAre(1, 154, 4096, 128));
}

TEST(Sd3TextEncoderTest, WidthsMustJoin) {
  nn::ClipTextConfig wide = SmallClip();
  wide.width = 4096;
  EXPECT_TRUE(Sd3TextEncoder::Check({SmallClip(), SmallClip(), SmallT5(4096)}).ok());
  EXPECT_TRUE(Sd3TextEncoder::Check({{}, {}, SmallT5(32)}).ok());
  EXPECT_FALSE(Sd3TextEncoder::Check({SmallClip(), {}, SmallT5(32)}).ok());
  EXPECT_FALSE(Sd3TextEncoder::Check({SmallClip(), wide, {}}).ok());
  EXPECT_FALSE(Sd3TextEncoder::Check({}).ok());
}

// float16 would overflow: the residual stream and the matrices are float32 then.
TEST_F(TextEncoderTest, T5OfHalvesComputesInFloat) {
  FluxTextEncoder encoder(&no_tensors_, SmallClip(), SmallT5(32));
  Fill(&encoder);
  const at::Tensor expected = States(encoder, "a fox", nullptr);
  encoder.set_compute({at::kCPU, at::kHalf});
  EXPECT_TRUE(at::equal(States(encoder, "a fox", nullptr), expected));
}

}  // namespace
}  // namespace distorch::text
