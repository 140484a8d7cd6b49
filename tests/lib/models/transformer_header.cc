#include "tests/lib/models/transformer_header.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

constexpr int64_t kLatentChannels = 16, kPatchArea = 4, kTimeChannels = 256, kMlpRatio = 4;
constexpr int64_t kMmDitHead = 64, kFluxHead = 128;

// Gathers a header's tensors.
class Header {
 public:
  Header(DType dtype, std::string prefix) : dtype_(dtype), prefix_(std::move(prefix)) {}

  void Add(const std::string& name, std::vector<int64_t> shape) {
    entries_.push_back({absl::StrCat(prefix_, name), dtype_, std::move(shape), ""});
  }
  void Linear(const std::string& name, int64_t in, int64_t out) {
    Add(name + ".weight", {out, in});
    Add(name + ".bias", {out});
  }
  std::vector<SafetensorsEntry> Take() { return std::move(entries_); }

 private:
  DType dtype_;
  std::string prefix_;
  std::vector<SafetensorsEntry> entries_;
};

void AddAttention(Header& header, const std::string& name, const MmDitShape& shape, bool output) {
  header.Linear(name + ".qkv", shape.width, 3 * shape.width);
  if (output) header.Linear(name + ".proj", shape.width, shape.width);
  if (!shape.qk_norm) return;
  header.Add(name + ".ln_q.weight", {kMmDitHead});
  header.Add(name + ".ln_k.weight", {kMmDitHead});
}

void AddStream(Header& header, const std::string& name, const MmDitShape& shape, bool dual,
               bool ends) {
  AddAttention(header, name + ".attn", shape, !ends);
  if (dual) AddAttention(header, name + ".attn2", shape, true);
  if (!ends) {
    header.Linear(name + ".mlp.fc1", shape.width, kMlpRatio * shape.width);
    header.Linear(name + ".mlp.fc2", kMlpRatio * shape.width, shape.width);
  }
  header.Linear(name + ".adaLN_modulation.1", shape.width, (ends ? 2 : dual ? 9 : 6) * shape.width);
}

void AddEmbedder(Header& header, const std::string& name, int64_t in, int64_t width) {
  header.Linear(name + ".in_layer", in, width);
  header.Linear(name + ".out_layer", width, width);
}

void AddQkNorm(Header& header, const std::string& name) {
  header.Add(name + ".query_norm.scale", {kFluxHead});
  header.Add(name + ".key_norm.scale", {kFluxHead});
}

}  // namespace

std::vector<SafetensorsEntry> MmDitHeader(const MmDitShape& shape, DType dtype,
                                          const std::string& prefix) {
  Header header(dtype, prefix);
  const int64_t width = shape.width, blocks = width / kMmDitHead;
  header.Add("pos_embed", {1, shape.position_side * shape.position_side, width});
  header.Add("x_embedder.proj.weight", {width, kLatentChannels, 2, 2});
  header.Add("x_embedder.proj.bias", {width});
  header.Linear("t_embedder.mlp.0", kTimeChannels, width);
  header.Linear("t_embedder.mlp.2", width, width);
  header.Linear("y_embedder.mlp.0", shape.pooled_width, width);
  header.Linear("y_embedder.mlp.2", width, width);
  header.Linear("context_embedder", shape.context_width, width);
  for (int64_t i = 0; i < blocks; ++i) {
    const std::string name = absl::StrCat("joint_blocks.", i);
    AddStream(header, name + ".context_block", shape, false, i + 1 == blocks);
    AddStream(header, name + ".x_block", shape, i < shape.dual_blocks, false);
  }
  header.Linear("final_layer.linear", width, kPatchArea * kLatentChannels);
  header.Linear("final_layer.adaLN_modulation.1", width, 2 * width);
  return header.Take();
}

std::vector<SafetensorsEntry> FluxHeader(const FluxShape& shape, DType dtype,
                                         const std::string& prefix) {
  Header header(dtype, prefix);
  const int64_t width = shape.width;
  header.Linear("img_in", kPatchArea * shape.in_channels, width);
  AddEmbedder(header, "time_in", kTimeChannels, width);
  AddEmbedder(header, "vector_in", shape.pooled_width, width);
  if (shape.guidance) AddEmbedder(header, "guidance_in", kTimeChannels, width);
  header.Linear("txt_in", shape.context_width, width);
  for (int64_t i = 0; i < shape.double_blocks; ++i) {
    for (const char* stream : {"img", "txt"}) {
      const std::string name = absl::StrCat("double_blocks.", i, ".", stream);
      header.Linear(name + "_mod.lin", width, 6 * width);
      header.Linear(name + "_attn.qkv", width, 3 * width);
      AddQkNorm(header, name + "_attn.norm");
      header.Linear(name + "_attn.proj", width, width);
      header.Linear(name + "_mlp.0", width, kMlpRatio * width);
      header.Linear(name + "_mlp.2", kMlpRatio * width, width);
    }
  }
  for (int64_t i = 0; i < shape.single_blocks; ++i) {
    const std::string name = absl::StrCat("single_blocks.", i);
    header.Linear(name + ".linear1", width, (3 + kMlpRatio) * width);
    header.Linear(name + ".linear2", (1 + kMlpRatio) * width, width);
    AddQkNorm(header, name + ".norm");
    header.Linear(name + ".modulation.lin", width, 3 * width);
  }
  header.Linear("final_layer.linear", width, kPatchArea * kLatentChannels);
  header.Linear("final_layer.adaLN_modulation.1", width, 2 * width);
  return header.Take();
}

MmDitShape Sd35LargeShape() {
  return {.width = 2432,
          .context_width = 4096,
          .pooled_width = 2048,
          .position_side = 192,
          .qk_norm = true};
}

MmDitShape Sd35MediumShape() {
  return {.width = 1536,
          .context_width = 4096,
          .pooled_width = 2048,
          .position_side = 384,
          .qk_norm = true,
          .dual_blocks = 13};
}

FluxShape FluxDevShape() {
  return {.width = 3072,
          .context_width = 4096,
          .pooled_width = 768,
          .double_blocks = 19,
          .single_blocks = 38};
}

}  // namespace distorch
