// Checkpoints in other types and formats: fp8 against the reference's results, and every other
// format against a safetensors file of the values that it stands for, bit for bit.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/torch_dtype.h"
#include "lib/models/diffusers_names.h"
#include "lib/models/family.h"
#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/golden_case.h"
#include "tests/support/golden_checkpoint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"
#include "tests/support/torch_archive_writer.h"

namespace distorch {
namespace {

constexpr double kSampleTolerance = 2e-4;
constexpr absl::string_view kUNetPrefix = "model.diffusion_model.";

using Tensors = std::map<std::string, at::Tensor>;

const TempFolder& Folder() {
  static const TempFolder* const folder = new TempFolder;
  return *folder;
}

DaemonCore& Core() {
  static DaemonCore* const core = [] {
    CoreOptions options;
    options.checkpoint_dirs = {Folder().path()};
    options.simulate_devices = "cuda:0=6GiB,cuda:1=6GiB";
    options.compute_dtype = "fp32";
    auto created = DaemonCore::Create(options, nullptr);
    EXPECT_TRUE(created.ok()) << created.status();
    return created->release();
  }();
  return *core;
}

// A golden checkpoint's tensors, all of them float32.
Tensors ReadGolden(const std::string& family) {
  const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, family, DISTORCH_GOLDEN_CACHE);
  EXPECT_TRUE(path.ok()) << path.status();
  const auto file = CheckpointFile::Open(*path);
  EXPECT_TRUE(file.ok()) << file.status();
  Tensors tensors;
  for (const TensorInfo& info : (*file)->index().tensors()) {
    at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(ToScalarType(info.dtype)));
    const std::span bytes(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes());
    EXPECT_TRUE((*file)->Read(info, 0, bytes).ok());
    tensors[info.name] = IsFloating(info.dtype) ? tensor.to(at::kFloat) : tensor;
  }
  return tensors;
}

bool IsUNetMatrix(const std::string& name, const at::Tensor& tensor) {
  return absl::StartsWith(name, kUNetPrefix) && tensor.dim() >= 2;
}

std::string BytesOfTensor(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  return {static_cast<const char*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

DType DTypeOf(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kLong ? DType::kI64 : ToDType(tensor.scalar_type());
}

// Writes a safetensors file into the checkpoints' folder; its name.
std::string WriteCheckpoint(const std::string& name, const Tensors& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [key, tensor] : tensors)
    entries.push_back({key, DTypeOf(tensor), tensor.sizes().vec(), BytesOfTensor(tensor)});
  EXPECT_TRUE(WriteSafetensors(Folder().File(name), entries).ok());
  return name;
}

LoadSpec SpecFor(const std::string& ckpt_name, bool split) {
  LoadSpec spec;
  spec.ckpt_name = ckpt_name;
  spec.unet_compute_device = spec.clip_compute_device = spec.vae_device = split ? "cuda:0" : "cpu";
  if (split) spec.unet_expert_mode_allocations = "cuda:0,30%;cuda:1,20%;cpu,20%;disk,30%";
  return spec;
}

// The case "plain" of a family's extras, through what `spec` loads; text from `clip` when the file
// has none.
HostTensor SamplePlain(const std::string& family, const LoadSpec& spec, LoadResult* loaded_out,
                       const LoadSpec* clip = nullptr) {
  const GoldenCase extras(std::string(DISTORCH_GOLDEN_DIR) + "/" + family + "/extras");
  const auto& plain = extras.cases()[0];
  CoreClient client(&Core());
  const auto loaded = client.Load(spec);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return {};
  *loaded_out = *loaded;
  std::string clip_handle = loaded->clip;
  if (clip != nullptr) {
    LoadSpec keep = *clip;
    keep.eject_models = false;
    const auto encoder = client.Load(keep);
    EXPECT_TRUE(encoder.ok()) << encoder.status();
    if (!encoder.ok()) return {};
    clip_handle = encoder->clip;
  }
  SampleSpec sample;
  sample.model = loaded->model;
  for (const auto& [key, conditioning] :
       {std::pair{"positive", &sample.positive.id}, std::pair{"negative", &sample.negative.id}}) {
    const auto encoded = client.EncodeText({clip_handle, plain[key].get<std::string>()});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    if (encoded.ok()) *conditioning = encoded->conditioning_id;
  }
  sample.options.seed = plain["seed"];
  sample.options.steps = plain["steps"];
  sample.options.cfg = plain["cfg"];
  sample.options.sampler_name = plain["sampler"];
  sample.options.scheduler = plain["scheduler"];
  sample.options.denoise = plain["denoise"];
  sample.latent.shape = plain["shape"].get<std::vector<int64_t>>();
  const auto count = static_cast<size_t>(c10::multiply_integers(sample.latent.shape));
  sample.latent.data.assign(count * sizeof(float), '\0');
  auto latent = client.Sample(sample);
  EXPECT_TRUE(latent.ok()) << latent.status();
  return latent.ok() ? *std::move(latent) : HostTensor();
}

HostTensor SamplePlain(const std::string& family, const LoadSpec& spec) {
  LoadResult loaded;
  return SamplePlain(family, spec, &loaded);
}

int64_t UNetBytes(const LoadResult& loaded) {
  int64_t bytes = 0;
  for (const DeviceBytes& device : loaded.placement[0].devices) bytes += device.measured_bytes;
  return bytes;
}

class FormatsTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(CoreClient(&Core()).UnloadAll().ok()); }
};

class Float8Test : public FormatsTest,
                   public testing::WithParamInterface<std::pair<const char*, DType>> {};

TEST_P(Float8Test, EqualsTheReferenceAndStaysFloat8) {
  const auto& [family, dtype] = GetParam();
  Tensors tensors = ReadGolden(family);
  int64_t matrices = 0, others = 0;
  for (auto& [name, tensor] : tensors) {
    if (IsUNetMatrix(name, tensor)) {
      tensor = tensor.to(ToScalarType(dtype));
      matrices += tensor.numel();
    } else if (absl::StartsWith(name, kUNetPrefix)) {
      others += static_cast<int64_t>(tensor.nbytes());
    }
  }
  const std::string name = WriteCheckpoint("float8.safetensors", tensors);
  const GoldenCase golden(absl::StrCat(DISTORCH_GOLDEN_DIR, "/", family));
  const auto expected = CheckpointFile::Open(absl::StrCat(
      DISTORCH_GOLDEN_DIR, "/", family, "/extras/expected_", DTypeName(dtype), ".safetensors"));
  ASSERT_TRUE(expected.ok()) << expected.status();
  const TensorInfo& info = *(*expected)->index().Find("sample.plain");
  HostTensor want{info.dtype, info.shape, std::string(info.bytes, '\0')};
  ASSERT_TRUE((*expected)->Read(info, 0, std::as_writable_bytes(std::span(want.data))).ok());

  LoadResult on_cpu, split;
  const HostTensor first = SamplePlain(family, SpecFor(name, false), &on_cpu);
  EXPECT_LE(RelativeError(first, want), kSampleTolerance);
  EXPECT_EQ(UNetBytes(on_cpu), matrices + others);  // the norms and biases keep their type
  EXPECT_EQ(SamplePlain(family, SpecFor(name, true), &split).data, first.data);
  EXPECT_EQ(UNetBytes(split), matrices + others);
}

INSTANTIATE_TEST_SUITE_P(Families, Float8Test,
                         testing::Values(std::pair("sd1", DType::kF8E4M3),
                                         std::pair("sd1", DType::kF8E5M2),
                                         std::pair("flux", DType::kF8E4M3),
                                         std::pair("flux", DType::kF8E5M2)),
                         [](const auto& info) {
                           return absl::StrCat(info.param.first, "_", DTypeName(info.param.second));
                         });

TEST_F(FormatsTest, WeightDtypeConvertsWhileLoading) {
  Tensors tensors = ReadGolden("sd1");
  const std::string original = WriteCheckpoint("original.safetensors", tensors);
  for (const auto& [field, dtype] : {std::pair{"fp16", DType::kF16},
                                     {"bf16", DType::kBF16},
                                     {"fp8_e4m3fn", DType::kF8E4M3},
                                     {"fp8_e5m2", DType::kF8E5M2}}) {
    SCOPED_TRACE(field);
    Tensors converted = tensors;
    for (auto& [name, tensor] : converted) {
      if (absl::StartsWith(name, kUNetPrefix)) tensor = tensor.to(ToScalarType(dtype));
    }
    const std::string name = WriteCheckpoint("converted.safetensors", converted);
    LoadSpec spec = SpecFor(original, true);
    spec.weight_dtype = field;
    EXPECT_EQ(SamplePlain("sd1", spec).data, SamplePlain("sd1", SpecFor(name, true)).data);
  }
}

TEST_F(FormatsTest, ScaledFloat8IsMultipliedByItsScale) {
  Tensors plain = ReadGolden("sd1");
  Tensors scaled = plain;
  for (auto& [name, tensor] : plain) {
    if (!IsUNetMatrix(name, tensor) || tensor.dim() != 2) continue;
    const at::Tensor scale = tensor.abs().max() / 448;
    const at::Tensor stored = (tensor / scale).to(at::kFloat8_e4m3fn);
    scaled[name] = stored;
    scaled[std::string(absl::StripSuffix(name, "weight")) + "scale_weight"] = scale;
    tensor = stored.to(at::kFloat) * scale;
  }
  scaled["model.diffusion_model.scaled_fp8"] = at::empty({0}).to(at::kFloat8_e4m3fn);
  const std::string name = WriteCheckpoint("scaled.safetensors", scaled);
  const HostTensor expected =
      SamplePlain("sd1", SpecFor(WriteCheckpoint("plain.safetensors", plain), false));
  EXPECT_EQ(SamplePlain("sd1", SpecFor(name, false)).data, expected.data);
  EXPECT_EQ(SamplePlain("sd1", SpecFor(name, true)).data, expected.data);
  LoadSpec converted = SpecFor(name, true);
  converted.weight_dtype = "fp32";
  EXPECT_EQ(SamplePlain("sd1", converted).data, expected.data);
}

TEST_F(FormatsTest, APyTorchArchiveIsTheSameCheckpoint) {
  const Tensors tensors = ReadGolden("sd1");
  std::vector<std::string> storages, items;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.scalar_type() != at::kFloat) continue;
    std::vector<int32_t> shape, strides;
    for (int64_t i = 0; i < tensor.dim(); ++i) {
      shape.push_back(static_cast<int32_t>(tensor.size(i)));
      strides.push_back(static_cast<int32_t>(tensor.stride(i)));
    }
    items.push_back(pickle::Text(name));
    items.push_back(pickle::Tensor(absl::StrCat(storages.size()),
                                   static_cast<int32_t>(tensor.numel()), 0, shape, strides));
    storages.push_back(BytesOfTensor(tensor));
  }
  const std::string root = pickle::Dict({pickle::Text("state_dict"), pickle::Dict(items)});
  Folder().Write("model.ckpt", ZipBytes(ArchiveMembers(pickle::Whole(root), storages)));
  const std::string name = WriteCheckpoint("same.safetensors", tensors);
  EXPECT_EQ(SamplePlain("sd1", SpecFor("model.ckpt", true)).data,
            SamplePlain("sd1", SpecFor(name, true)).data);
}

// Blocks of Q8_0 and what they stand for.
std::string QuantizeQ8(const at::Tensor& tensor, at::Tensor* dequantized) {
  const at::Tensor rows = tensor.reshape({-1, 32});
  const at::Tensor d = (rows.abs().amax({1}, true) / 127).to(at::kHalf);
  const at::Tensor scale = d.to(at::kFloat);
  const at::Tensor q = at::nan_to_num(rows / scale).round().clamp(-127, 127).to(at::kChar);
  *dequantized = (scale * q.to(at::kFloat)).reshape(tensor.sizes());
  return BytesOfTensor(at::cat({d.view(at::kChar), q}, 1));
}

TEST_F(FormatsTest, AGgufFileStaysQuantizedAndComputesWhatItStandsFor) {
  constexpr uint32_t kF32 = 0, kQ8_0 = 8;
  constexpr size_t kQ8Bytes = 34, kQ8Elements = 32;
  Tensors tensors = ReadGolden("sd1");
  std::vector<GgufTensor> unet;
  size_t bytes = 0, blocks = 0;
  for (auto& [name, tensor] : tensors) {
    if (!absl::StartsWith(name, kUNetPrefix)) continue;
    const std::string bare(absl::StripPrefix(name, kUNetPrefix));
    const bool quantized = tensor.dim() == 2 && tensor.size(1) % kQ8Elements == 0;
    std::string data = quantized ? QuantizeQ8(tensor, &tensor) : BytesOfTensor(tensor);
    bytes += data.size();
    if (quantized) blocks += data.size() / kQ8Bytes;
    unet.push_back({bare, quantized ? kQ8_0 : kF32, tensor.sizes().vec(), std::move(data)});
  }
  ASSERT_GT(blocks, 1000);
  Folder().Write("unet.gguf", GgufBytes({GgufText("general.architecture", "sd1")}, unet));
  const LoadSpec clip = SpecFor(WriteCheckpoint("dequantized.safetensors", tensors), false);
  const HostTensor expected = SamplePlain("sd1", clip);
  for (const bool split : {false, true}) {
    LoadResult loaded;
    const HostTensor actual = SamplePlain("sd1", SpecFor("unet.gguf", split), &loaded, &clip);
    EXPECT_EQ(actual.data, expected.data);
    EXPECT_EQ(UNetBytes(loaded), static_cast<int64_t>(bytes));
  }
  LoadSpec converted = SpecFor("unet.gguf", true);
  converted.weight_dtype = "fp32";
  LoadResult loaded;
  EXPECT_EQ(SamplePlain("sd1", converted, &loaded, &clip).data, expected.data);
  EXPECT_EQ(UNetBytes(loaded),
            static_cast<int64_t>(bytes + blocks * (kQ8Elements * sizeof(float) - kQ8Bytes)));
}

// A parameter's values, put together of the file's tensors.
at::Tensor ValueOf(const Param& param, const Tensors& file) {
  std::vector<at::Tensor> pieces;
  for (const TensorPiece& piece : param.source->pieces) {
    const at::Tensor& whole = file.at(piece.tensor->name);
    pieces.push_back(whole.dim() == 0 ? whole : whole.narrow(0, piece.first_row, piece.rows));
  }
  const at::Tensor value = pieces.size() == 1 ? pieces[0] : at::cat(pieces);
  return param.source->transposed ? value.t() : value;
}

// "decoder.up.0.block.1.nin_shortcut" as diffusers says it.
std::string DiffusersVaeName(std::string name, int levels) {
  std::smatch match;
  const auto replace = [&](const char* pattern, const std::string& by) {
    name = std::regex_replace(name, std::regex(pattern), by);
  };
  if (std::regex_match(name, match, std::regex(R"((decoder\.up)\.(\d+)\.(.*))"))) {
    name =
        absl::StrCat("decoder.up_blocks.", levels - 1 - std::stoi(match[2]), ".", match[3].str());
  }
  replace(R"(encoder\.down\.(\d+))", "encoder.down_blocks.$1");
  replace(R"(\.block\.(\d+))", ".resnets.$1");
  replace(R"(downsample\.conv)", "downsamplers.0.conv");
  replace(R"(upsample\.conv)", "upsamplers.0.conv");
  replace(R"(mid\.block_1)", "mid_block.resnets.0");
  replace(R"(mid\.block_2)", "mid_block.resnets.1");
  replace(R"(mid\.attn_1\.norm)", "mid_block.attentions.0.group_norm");
  replace(R"(mid\.attn_1\.([qkv])$)", "mid_block.attentions.0.to_$1");
  replace(R"(mid\.attn_1\.proj_out)", "mid_block.attentions.0.to_out.0");
  replace(R"(nin_shortcut)", "conv_shortcut");
  replace(R"(coder\.norm_out)", "coder.conv_norm_out");
  return name;
}

class DiffusersFolderTest : public FormatsTest, public testing::WithParamInterface<const char*> {
 protected:
  // Writes the golden checkpoint of GetParam() as a folder "diffusers".
  void WriteFolder() {
    const auto path = GoldenCheckpoint(DISTORCH_GOLDEN_DIR, GetParam(), DISTORCH_GOLDEN_CACHE);
    const auto file = CheckpointFile::Open(*path);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto skeleton = models::BuildSkeleton(**file);
    ASSERT_TRUE(skeleton.ok()) << skeleton.status();
    AddDiffusionModel(skeleton->unet->store());
    AddVae(skeleton->vae->store());
    AddTextModels(skeleton->clip->store());
    std::filesystem::remove_all(Folder().path() + "/diffusers");
    Folder().Write("diffusers/model_index.json", "{}");
    for (const auto& [subfolder, tensors] : models_) {
      const char* name = subfolder.starts_with("text") ? "model" : "diffusion_pytorch_model";
      Folder().File(absl::StrCat("diffusers/", subfolder, "/x"));
      WriteCheckpoint(absl::StrCat("diffusers/", subfolder, "/", name, ".safetensors"), tensors);
    }
  }

 private:
  void AddDiffusionModel(const WeightStore& store) {
    Tensors& model = models_[IsUNet() ? "unet" : "transformer"];
    for (const models::DiffusersName& name : models::DiffusersNames(store)) {
      const std::vector<Param>& params = name.module->params();
      for (size_t i = 0; i < params.size(); ++i) {
        at::Tensor value = ValueOf(params[i], golden_);
        if (name.rows > 0) value = value.narrow(0, name.first_row, name.rows);
        if (name.swapped_halves) value = at::roll(value, value.size(0) / 2, 0);
        model[absl::StrCat(name.name, i == 0 ? ".weight" : ".bias")] = value;
      }
    }
    for (const auto& buffer : store.buffers()) {
      model["pos_embed.pos_embed"] = ValueOf(buffer->params()[0], golden_);
    }
  }

  void AddVae(const WeightStore& store) {
    constexpr int kLevels = 4;
    for (const auto& slot : store.slots()) {
      const std::string name = DiffusersVaeName(
          std::string(absl::StripPrefix(slot->name(), "first_stage_model.")), kLevels);
      for (size_t i = 0; i < slot->params().size(); ++i) {
        at::Tensor value = ValueOf(slot->params()[i], golden_);
        // Its attention has matrices.
        if (absl::StrContains(name, "attentions") && value.dim() == 4) value = value.flatten(1);
        models_["vae"][absl::StrCat(name, i == 0 ? ".weight" : ".bias")] = value;
      }
    }
  }

  void AddTextModels(const WeightStore& store) {
    const std::string family = GetParam();
    const std::map<std::string, std::string> subfolders = {
        {"clip_l", "text_encoder"},
        {"clip_g", "text_encoder_2"},
        {"t5xxl", family == "sd3" ? "text_encoder_3" : "text_encoder_2"}};
    for (const auto& slot : store.slots()) {
      const std::string& name = slot->name();
      const std::string rest = name.substr(name.find('.') + 1);
      ASSERT_TRUE(absl::StartsWith(rest, "transformer.")) << name;
      for (size_t i = 0; i < slot->params().size(); ++i) {
        if (!slot->params()[i].source) continue;
        models_[subfolders.at(name.substr(0, name.find('.')))][absl::StrCat(
            absl::StripPrefix(rest, "transformer."), i == 0 ? ".weight" : ".bias")] =
            ValueOf(slot->params()[i], golden_);
      }
    }
  }

  bool IsUNet() const {
    return std::string(GetParam()).starts_with("sd1") || std::string(GetParam()) == "sdxl";
  }

  const Tensors golden_ = ReadGolden(GetParam());
  std::map<std::string, Tensors> models_;
};

TEST_P(DiffusersFolderTest, IsTheSameCheckpoint) {
  ASSERT_NO_FATAL_FAILURE(WriteFolder());
  const std::string name = WriteCheckpoint("original.safetensors", ReadGolden(GetParam()));
  const HostTensor expected = SamplePlain(GetParam(), SpecFor(name, true));
  LoadResult loaded;
  EXPECT_EQ(SamplePlain(GetParam(), SpecFor("diffusers", true), &loaded).data, expected.data);
  DecodeLatentSpec decode;
  decode.vae = loaded.vae;
  decode.latent = expected;
  CoreClient client(&Core());
  const auto image = client.Decode(decode);
  ASSERT_TRUE(image.ok()) << image.status();
  const auto original = client.Load(SpecFor(name, true));
  ASSERT_TRUE(original.ok()) << original.status();
  decode.vae = original->vae;
  const auto original_image = client.Decode(decode);
  ASSERT_TRUE(original_image.ok()) << original_image.status();
  EXPECT_EQ(image->images.data, original_image->images.data);
}

INSTANTIATE_TEST_SUITE_P(Families, DiffusersFolderTest,
                         testing::Values("sd1", "sdxl", "sd3", "flux"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace distorch
