#include "lib/lora/adapter_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace distorch::lora {
namespace {

using testing::HasSubstr;

TensorIndex IndexOf(const std::vector<std::string>& names) {
  std::vector<TensorInfo> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::kF32, {2, 2}});
  return TensorIndex(std::move(tensors), {});
}

TEST(AdapterFileTest, KnowsEverySpellingOfAPart) {
  const std::pair<const char*, Part> kSpellings[] = {
      {"m.lora_up.weight", Part::kUp},
      {"m.lora_down.weight", Part::kDown},
      {"m_lora.up.weight", Part::kUp},
      {"m_lora.down.weight", Part::kDown},
      {"m.lora_B.weight", Part::kUp},
      {"m.lora_A.weight", Part::kDown},
      {"m.lora.up.weight", Part::kUp},
      {"m.lora.down.weight", Part::kDown},
      {"m.lora_B", Part::kUp},
      {"m.lora_A", Part::kDown},
      {"m.lora_linear_layer.up.weight", Part::kUp},
      {"m.lora_linear_layer.down.weight", Part::kDown},
      {"m.lora_B.default.weight", Part::kUp},
      {"m.lora_A.default.weight", Part::kDown},
      {"m.lora_mid.weight", Part::kMid},
      {"m.alpha", Part::kAlpha},
      {"m.dora_scale", Part::kDoraScale},
      {"m.hada_t2", Part::kLohaT2},
      {"m.lokr_w2_b", Part::kLokrW2B},
      {"m.lokr_w2", Part::kLokrW2},
      {"m.a1.weight", Part::kGloraA1},
      {"m.diff", Part::kDiff},
      {"m.w_norm", Part::kDiff},
      {"m.diff_b", Part::kDiffBias},
      {"m.b_norm", Part::kDiffBias},
      {"m.set_weight", Part::kSet},
  };
  for (const auto& [name, part] : kSpellings) {
    SCOPED_TRACE(name);
    const TensorIndex index = IndexOf({name});
    const auto modules = ReadAdapterModules(index);
    ASSERT_TRUE(modules.ok()) << modules.status();
    ASSERT_TRUE(modules->by_name.contains("m"));
    EXPECT_EQ(modules->by_name.at("m")[part], &index.tensors()[0]);
    EXPECT_TRUE(modules->unknown.empty());
  }
}

TEST(AdapterFileTest, GroupsByModuleAndKeepsWhatItDoesNotKnowApart) {
  const TensorIndex index =
      IndexOf({"a.lora_up.weight", "a.lora_down.weight", "b.alpha", "strange", "a.lora_B.weight"});
  const auto modules = ReadAdapterModules(index);
  ASSERT_TRUE(modules.ok());
  EXPECT_EQ(modules->by_name.size(), 2u);
  ASSERT_EQ(modules->unknown.size(), 2u);
  EXPECT_EQ(modules->unknown[0]->name, "strange");
  EXPECT_EQ(modules->unknown[1]->name, "a.lora_B.weight");  // a second "up"
}

TEST(AdapterFileTest, ACheckpointIsNoAdapter) {
  const auto checkpoint =
      ReadAdapterModules(IndexOf({"model.diffusion_model.out.2.weight", "x\n.bias"}));
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(checkpoint.status().message(), HasSubstr("is not an adapter"));
  EXPECT_THAT(checkpoint.status().message(), HasSubstr("'model.diffusion_model.out.2.weight'"));
  EXPECT_THAT(checkpoint.status().message(), HasSubstr("'x\\n.bias'"));
  EXPECT_THAT(ReadAdapterModules(IndexOf({})).status().message(), HasSubstr("no tensors"));
  // An ending alone names no module.
  EXPECT_FALSE(ReadAdapterModules(IndexOf({".lora_up.weight"})).ok());
}

}  // namespace
}  // namespace distorch::lora
