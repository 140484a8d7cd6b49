// Each kind of adapter against the reference's results (tests/golden/adapters), and what a hostile
// or foreign file gets.
#include "lib/lora/adapter.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/lora/stochastic_rounding.h"
#include "tests/lib/lora/lora_fixture.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace distorch::lora {
namespace {

using testing::HasSubstr;

const std::string kAdapters = std::string(DISTORCH_GOLDEN_DIR) + "/adapters/";
const std::string kLayer = "diffusion_model.layer";
constexpr double kTolerance = 1e-5;  // relative to the largest magnitude

std::shared_ptr<const CheckpointFile> Open(const std::string& path) {
  auto file = CheckpointFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return *file;
}

at::Tensor Expected(const std::string& name) {
  static const auto* const file =
      new std::shared_ptr<const CheckpointFile>(Open(kAdapters + "expected.safetensors"));
  const TensorInfo* const info = (*file)->index().Find(name);
  EXPECT_NE(info, nullptr) << name;
  at::Tensor tensor = at::empty(info->shape, at::kFloat);
  EXPECT_TRUE(
      (*file)->Read(*info, 0, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()}).ok());
  return tensor;
}

bool Has(const std::string& name) {
  return Open(kAdapters + "expected.safetensors")->index().Find(name) != nullptr;
}

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  EXPECT_LE((actual - expected).abs().max().item<double>(),
            kTolerance * expected.abs().max().item<double>());
}

absl::StatusOr<AdapterPlan> Plan(const CheckpointFile& file, const SlotComponent& component) {
  auto modules = ReadAdapterModules(file.index());
  EXPECT_TRUE(modules.ok()) << modules.status();
  return PlanAdapter(file, *modules, component.store());
}

void Attach(const CheckpointFile& file, const AdapterPlan& plan, const AttachOptions& options) {
  const auto tensors = AdapterTensors::Read(file, plan, at::Device(at::kCPU), CancelToken());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->bytes(), AdapterTensors::BytesOf(plan));
  EXPECT_TRUE(tensors->Has(plan));
  AttachAdapter(plan, *tensors, options);
}

// The layer's weight and bias with the adapters at `paths` on them.
WeightLease Patched(const SlotComponent& component,
                    const std::vector<std::pair<std::string, double>>& adapters,
                    bool round_to_fp8 = false) {
  for (const auto& [path, strength] : adapters) {
    const auto file = Open(path);
    const auto plan = Plan(*file, component);
    EXPECT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->matched.size(), file->index().tensors().size());
    AttachOptions options;
    options.strength = strength;
    options.round_to_fp8 = round_to_fp8;
    Attach(*file, *plan, options);
  }
  return component.slot(0)->Acquire(at::Device(at::kCPU), at::kFloat);
}

SlotComponent Layer(const at::Tensor& weight, const at::Tensor& bias) {
  SlotComponent component({{kLayer, weight.sizes().vec()}});
  component.Fill(0, weight, bias);
  return component;
}

class FormTest : public testing::TestWithParam<const char*> {};

TEST_P(FormTest, ChangesTheWeightAsTheReferenceDoes) {
  c10::InferenceMode no_autograd;
  const std::string form = GetParam();
  for (const auto& [strength, suffix] : {std::pair{1.0, "1.0"}, std::pair{0.7, "0.7"}}) {
    SCOPED_TRACE(suffix);
    const at::Tensor weight = Expected(form + ".weight"), bias = Expected(form + ".bias");
    const SlotComponent component = Layer(weight.clone(), bias.clone());
    const WeightLease lease = Patched(component, {{kAdapters + form + ".safetensors", strength}});
    ExpectNear(lease.weight(), Expected(form + ".weight." + suffix));
    ExpectNear(lease.bias(),
               Has(form + ".bias." + suffix) ? Expected(form + ".bias." + suffix) : bias);
    // What is stored stays as it was.
    EXPECT_TRUE(at::equal(component.slot(0)->stored()[0], weight));
    EXPECT_TRUE(at::equal(component.slot(0)->stored()[1], bias));
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FormTest,
                         testing::Values("lora_linear", "lora_conv", "lora_mid", "half",
                                         "dora_output", "dora_input", "dora_conv_input",
                                         "loha_linear", "loha_conv", "loha_tucker", "lokr_whole",
                                         "lokr_both_low", "lokr_first_low", "lokr_conv",
                                         "lokr_conv_flat", "lokr_tucker", "lokr_dora",
                                         "glora_linear", "glora_old", "glora_conv", "diff", "norm",
                                         "set_weight"),
                         [](const auto& info) { return std::string(info.param); });

TEST(AdapterTest, StacksInTheOrderApplied) {
  c10::InferenceMode no_autograd;
  const SlotComponent component = Layer(Expected("lora_linear.weight"), at::zeros({12}));
  const WeightLease lease = Patched(component, {{kAdapters + "dora_output.safetensors", 0.7},
                                                {kAdapters + "loha_linear.safetensors", -0.4}});
  ExpectNear(lease.weight(), Expected("stack.weight"));
}

TEST(AdapterTest, RowsAndSwappedHalvesOfFusedModules) {
  c10::InferenceMode no_autograd;
  // to_k of a fused matrix of 12 rows.
  SlotComponent flux({{"diffusion_model.double_blocks.0.img_attn.qkv", {12, 8}},
                      {"diffusion_model.final_layer.adaLN_modulation.1", {12, 8}}});
  const at::Tensor weight = Expected("rows.weight");
  flux.Fill(0, weight, at::zeros({12}));
  flux.Fill(1, weight, at::zeros({12}));
  const auto apply = [&](const std::string& name, const std::string& path, size_t slot) {
    const auto file = Open(path);
    auto modules = ReadAdapterModules(file->index());
    AdapterModules renamed;
    renamed.by_name[name] = modules->by_name.at(kLayer);
    const auto plan = PlanAdapter(*file, renamed, flux.store());
    EXPECT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->patches.size(), 1u);
    AttachOptions options;
    options.strength = 0.7;
    Attach(*file, *plan, options);
    return flux.slot(slot)->Acquire(at::Device(at::kCPU), at::kFloat);
  };
  ExpectNear(apply("transformer.transformer_blocks.0.attn.to_k", kAdapters + "rows.safetensors", 0)
                 .weight(),
             Expected("rows.weight.0.7"));
  ExpectNear(
      apply("transformer.norm_out.linear", kAdapters + "lora_linear.safetensors", 1).weight(),
      Expected("swapped.weight.0.7"));
}

TEST(AdapterTest, RoundsWhatIsStoredInFp8OnTheCpuWhenAskedTo) {
  c10::InferenceMode no_autograd;
  const at::Tensor stored = Expected("lora_linear.weight").to(at::kFloat8_e4m3fn);
  const auto layer = [&] { return Layer(stored, at::zeros({12})); };
  const std::string path = kAdapters + "lora_linear.safetensors";
  const at::Tensor precise = Patched(layer(), {{path, 0.7}}).weight().clone();
  const at::Tensor rounded = Patched(layer(), {{path, 0.7}}, true).weight().clone();
  EXPECT_FALSE(at::equal(precise, precise.to(at::kFloat8_e4m3fn).to(at::kFloat)));
  EXPECT_TRUE(at::equal(
      rounded, StochasticRounding(RoundingSeed(kLayer + ".weight")).Apply(precise.clone())));
  // Of a scaled file's weight, what is rounded is what such a file would store.
  constexpr float kScale = 0.3f;
  const StorageFormat format{DType::kF8E4M3, kScale, kScale};
  const auto scaled = [&] {
    SlotComponent component({{kLayer, stored.sizes().vec()}});
    component.Fill(0, stored, at::zeros({12}), format);
    return component;
  };
  const at::Tensor exact = Patched(scaled(), {{path, 0.7}}).weight() / kScale;
  EXPECT_TRUE(at::equal(
      Patched(scaled(), {{path, 0.7}}, true).weight(),
      StochasticRounding(RoundingSeed(kLayer + ".weight")).Apply(exact.clone()).mul(kScale)));
  // A weight of another type is never rounded.
  const SlotComponent wide = Layer(stored.to(at::kFloat), at::zeros({12}));
  EXPECT_TRUE(at::equal(Patched(wide, {{path, 0.7}}, true).weight(), precise));
}

TEST(AdapterTest, ATargetUnderTwoNamesIsChangedOnce) {
  TempFolder folder;
  const std::string path = folder.File("twice.safetensors");
  const std::string te = "_text_model_encoder_layers_0_mlp_fc1";
  ASSERT_TRUE(WriteSafetensors(path, {{"lora_te" + te + ".diff", DType::kF32, {4, 4}},
                                      {"lora_te1" + te + ".diff", DType::kF32, {4, 4}}})
                  .ok());
  const SlotComponent component(
      {{"clip_l.transformer.text_model.encoder.layers.0.mlp.fc1", {4, 4}}});
  const auto plan = Plan(*Open(path), component);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->patches.size(), 1u);
  EXPECT_EQ(plan->matched.size(), 2u);
}

struct BadAdapter {
  std::string name;
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
  std::string message;
  DType dtype = DType::kF32;
};

class BadAdapterTest : public testing::TestWithParam<BadAdapter> {};

// Nothing is computed or allocated: the files are sparse, and some would need terabytes.
TEST_P(BadAdapterTest, IsRefusedWithTheTensorsName) {
  TempFolder folder;
  const std::string path = folder.File("bad.safetensors");
  std::vector<SafetensorsEntry> entries;
  for (const auto& [part, shape] : GetParam().tensors)
    entries.push_back({kLayer + part, GetParam().dtype, shape});
  ASSERT_TRUE(WriteSafetensors(path, entries).ok());
  const SlotComponent component({{kLayer, {12, 8, 3, 3}}});
  const auto plan = Plan(*Open(path), component);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(plan.status().message(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Adapters, BadAdapterTest,
    testing::Values(
        BadAdapter{"NoDown", {{".lora_up.weight", {12, 3}}}, "its down (A) matrix is missing"},
        BadAdapter{"Ranks",
                   {{".lora_up.weight", {12, 3}}, {".lora_down.weight", {4, 72}}},
                   "lora_down.weight' has shape [4, 72], expected 3 rows"},
        BadAdapter{"Rows",
                   {{".lora_up.weight", {13, 3}}, {".lora_down.weight", {3, 72}}},
                   "expected 12 rows for a weight of shape [12, 8, 3, 3]"},
        BadAdapter{"Columns",
                   {{".lora_up.weight", {12, 3}}, {".lora_down.weight", {3, 8}}},
                   "expected 72 columns"},
        BadAdapter{"OneDimension",
                   {{".lora_up.weight", {12}}, {".lora_down.weight", {3, 72}}},
                   "two or more dimensions"},
        BadAdapter{
            "Empty", {{".lora_up.weight", {12, 0}}, {".lora_down.weight", {0, 72}}}, "none empty"},
        BadAdapter{"Integers",
                   {{".lora_up.weight", {12, 3}}, {".lora_down.weight", {3, 72}}},
                   "has dtype I32, expected a floating-point type",
                   DType::kI32},
        BadAdapter{"Core",
                   {{".lora_up.weight", {12, 3}},
                    {".lora_down.weight", {3, 8}},
                    {".lora_mid.weight", {3, 2, 3, 3}}},
                   "lora_mid.weight' has shape [3, 2, 3, 3], expected [3, 3, h, w]"},
        BadAdapter{"HugeKernel",
                   {{".lora_up.weight", {12, 1}},
                    {".lora_down.weight", {1, 8}},
                    {".lora_mid.weight", {1, 1, 100000, 100000}}},
                   "lora_down.weight"},
        BadAdapter{"LohaRank",
                   {{".hada_w1_a", {12, 3}},
                    {".hada_w1_b", {3, 72}},
                    {".hada_w2_a", {12, 3}},
                    {".hada_w2_b", {2, 72}}},
                   "hada_w2_b' has shape [2, 72], expected 3 rows"},
        BadAdapter{"KronTooLarge",
                   {{".lokr_w1", {100000, 100000}}, {".lokr_w2", {100000, 100000}}},
                   "Kronecker product"},
        BadAdapter{
            "KronOfLowRanksTooLarge",
            {{".lokr_w1", {3, 2}}, {".lokr_w2_a", {1000000, 1}}, {".lokr_w2_b", {1, 1000000}}},
            "lokr_w2_a' has shape [1000000, 1], expected one whose Kronecker product"},
        BadAdapter{"KronHalf", {{".lokr_w1", {3, 2}}}, "LoKr a matrix is missing"},
        BadAdapter{"Glora",
                   {{".a1.weight", {9, 3}},
                    {".a2.weight", {3, 8}},
                    {".b1.weight", {12, 3}},
                    {".b2.weight", {3, 72}}},
                   "a1.weight' has shape [9, 3], expected a GLoRA matrix"},
        BadAdapter{"Diff", {{".diff", {12, 8}}}, "diff' has shape [12, 8], expected [12, 8, 3, 3]"},
        BadAdapter{"DiffOfBias", {{".diff_b", {13}}}, "diff_b' has shape [13], expected [12]"},
        BadAdapter{"TwoKinds",
                   {{".diff", {12, 8, 3, 3}}, {".lokr_w1", {3, 2}}},
                   "change one weight, as LoKr and as a full difference"},
        BadAdapter{"Alpha",
                   {{".lora_up.weight", {12, 3}},
                    {".lora_down.weight", {3, 72}},
                    {".alpha", {1000000, 1000000}}},
                   "alpha' has shape [1000000, 1000000], expected 1 to 1 numbers"},
        BadAdapter{"Magnitude",
                   {{".lora_up.weight", {12, 3}},
                    {".lora_down.weight", {3, 72}},
                    {".dora_scale", {12, 8}}},
                   "dora_scale' has shape [12, 8], expected one magnitude"},
        BadAdapter{"Reshape",
                   {{".lora_up.weight", {12, 3}},
                    {".lora_down.weight", {3, 72}},
                    {".reshape_weight", {4}}},
                   "reshape_weight' would change a weight's shape"}),
    [](const auto& info) { return info.param.name; });

TEST(AdapterTest, AnAlphaThatIsNoNumberIsRefused) {
  TempFolder folder;
  const std::string path = folder.File("nan.safetensors");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(
      WriteSafetensors(path, {{kLayer + ".lora_up.weight", DType::kF32, {12, 3}},
                              {kLayer + ".lora_down.weight", DType::kF32, {3, 8}},
                              {kLayer + ".alpha",
                               DType::kF32,
                               {},
                               std::string(reinterpret_cast<const char*>(&nan), sizeof(nan))}})
          .ok());
  const SlotComponent component({{kLayer, {12, 8}}});
  EXPECT_THAT(Plan(*Open(path), component).status().message(), HasSubstr("alpha' is not finite"));
}

TEST(AdapterTest, AnotherFamilysAdapterFitsNothing) {
  const SlotComponent component({{"diffusion_model.other", {12, 8}}});
  const auto plan = Plan(*Open(kAdapters + "lora_linear.safetensors"), component);
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->patches.empty());
  EXPECT_TRUE(plan->matched.empty());
}

TEST(AdapterTest, ACancelledAttachStops) {
  const SlotComponent component = Layer(at::zeros({12, 8}), at::zeros({12}));
  const auto file = Open(kAdapters + "lora_linear.safetensors");
  const auto plan = Plan(*file, component);
  CancelToken cancel;
  cancel.Cancel(absl::CancelledError("enough"));
  EXPECT_EQ(AdapterTensors::Read(*file, *plan, at::Device(at::kCPU), cancel).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace distorch::lora
