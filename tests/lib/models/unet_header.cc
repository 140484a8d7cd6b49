#include "tests/lib/models/unet_header.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace distorch {
namespace {

class HeaderBuilder {
 public:
  HeaderBuilder(const UNetShape& shape, const std::string& prefix)
      : shape_(shape), prefix_(prefix), embed_(4 * shape.width) {}

  std::vector<SafetensorsEntry> Build() {
    Linear("time_embed.0", shape_.width, embed_);
    Linear("time_embed.2", embed_, embed_);
    if (shape_.class_channels > 0) {
      Linear("label_emb.0.0", shape_.class_channels, embed_);
      Linear("label_emb.0.2", embed_, embed_);
    }
    std::vector<int64_t> skips = InputBlocks();
    Middle(skips.back());
    OutputBlocks(std::move(skips));
    Norm("out.0", shape_.width);
    Conv("out.2", shape_.width, 4, 3);
    return std::move(entries_);
  }

 private:
  void Add(const std::string& name, std::vector<int64_t> shape) {
    entries_.push_back({prefix_ + name, DType::kF16, std::move(shape), ""});
  }
  void Norm(const std::string& name, int64_t width) {
    Add(name + ".weight", {width});
    Add(name + ".bias", {width});
  }
  void Linear(const std::string& name, int64_t in, int64_t out, bool bias = true) {
    Add(name + ".weight", {out, in});
    if (bias) Add(name + ".bias", {out});
  }
  void Conv(const std::string& name, int64_t in, int64_t out, int64_t kernel) {
    Add(name + ".weight", {out, in, kernel, kernel});
    Add(name + ".bias", {out});
  }
  void ResNet(const std::string& name, int64_t in, int64_t out) {
    Norm(name + ".in_layers.0", in);
    Conv(name + ".in_layers.2", in, out, 3);
    Linear(name + ".emb_layers.1", embed_, out);
    Norm(name + ".out_layers.0", out);
    Conv(name + ".out_layers.3", out, out, 3);
    if (in != out) Conv(name + ".skip_connection", in, out, 1);
  }
  void Attention(const std::string& name, int64_t width, int64_t context) {
    Linear(name + ".to_q", width, width, false);
    Linear(name + ".to_k", context, width, false);
    Linear(name + ".to_v", context, width, false);
    Linear(name + ".to_out.0", width, width);
  }
  void Projection(const std::string& name, int64_t width) {
    if (shape_.linear_projection) {
      Linear(name, width, width);
    } else {
      Conv(name, width, width, 1);
    }
  }
  void Transformer(const std::string& name, int64_t width, int64_t depth) {
    Norm(name + ".norm", width);
    Projection(name + ".proj_in", width);
    for (int64_t i = 0; i < depth; ++i) {
      const std::string block = absl::StrCat(name, ".transformer_blocks.", i);
      Attention(block + ".attn1", width, width);
      Linear(block + ".ff.net.0.proj", width, 8 * width);
      Linear(block + ".ff.net.2", 4 * width, width);
      Attention(block + ".attn2", width, shape_.context_width);
      for (const char* norm : {".norm1", ".norm2", ".norm3"}) Norm(block + norm, width);
    }
    Projection(name + ".proj_out", width);
  }

  // The channels that each block leaves.
  std::vector<int64_t> InputBlocks() {
    Conv("input_blocks.0.0", shape_.in_channels, shape_.width, 3);
    std::vector<int64_t> skips = {shape_.width};
    size_t resnet = 0;
    for (size_t level = 0; level < shape_.level_multipliers.size(); ++level) {
      const int64_t width = shape_.width * shape_.level_multipliers[level];
      for (int64_t i = 0; i < shape_.blocks_per_level; ++i, ++resnet) {
        const std::string name = absl::StrCat("input_blocks.", skips.size());
        ResNet(name + ".0", skips.back(), width);
        if (shape_.input_depth[resnet] > 0)
          Transformer(name + ".1", width, shape_.input_depth[resnet]);
        skips.push_back(width);
      }
      if (level + 1 == shape_.level_multipliers.size()) break;
      Conv(absl::StrCat("input_blocks.", skips.size(), ".0.op"), width, width, 3);
      skips.push_back(width);
    }
    return skips;
  }

  void Middle(int64_t width) {
    if (shape_.middle_depth < 0) return;
    ResNet("middle_block.0", width, width);
    if (shape_.middle_depth == 0) return;
    Transformer("middle_block.1", width, shape_.middle_depth);
    ResNet("middle_block.2", width, width);
  }

  void OutputBlocks(std::vector<int64_t> skips) {
    int64_t channels = skips.back();
    size_t block = 0;
    for (size_t level = shape_.level_multipliers.size(); level-- > 0;) {
      const int64_t width = shape_.width * shape_.level_multipliers[level];
      for (int64_t i = 0; i <= shape_.blocks_per_level; ++i, ++block) {
        const std::string name = absl::StrCat("output_blocks.", block);
        ResNet(name + ".0", channels + skips.back(), width);
        skips.pop_back();
        const int64_t depth = shape_.output_depth[block];
        if (depth > 0) Transformer(name + ".1", width, depth);
        if (level > 0 && i == shape_.blocks_per_level)
          Conv(name + (depth > 0 ? ".2.conv" : ".1.conv"), width, width, 3);
        channels = width;
      }
    }
  }

  const UNetShape shape_;
  const std::string prefix_;
  const int64_t embed_;
  std::vector<SafetensorsEntry> entries_;
};

UNetShape FullSdxl() {
  UNetShape shape;
  shape.width = 320;
  shape.context_width = 2048;
  shape.class_channels = 2816;
  shape.level_multipliers = {1, 2, 4};
  return shape;
}

}  // namespace

std::vector<SafetensorsEntry> UNetHeader(const UNetShape& shape, const std::string& prefix) {
  return HeaderBuilder(shape, prefix).Build();
}

UNetShape Ssd1bShape() {
  UNetShape shape = FullSdxl();
  shape.blocks_per_level = 2;
  shape.input_depth = {0, 0, 2, 2, 4, 4};
  shape.output_depth = {4, 4, 10, 2, 1, 1, 0, 0, 0};
  shape.middle_depth = 0;
  return shape;
}

UNetShape VegaShape() {
  UNetShape shape = FullSdxl();
  shape.blocks_per_level = 2;
  shape.input_depth = {0, 0, 1, 1, 2, 2};
  shape.output_depth = {2, 2, 2, 1, 1, 1, 0, 0, 0};
  shape.middle_depth = 0;
  return shape;
}

UNetShape Koala700mShape() {
  UNetShape shape = FullSdxl();
  shape.input_depth = {0, 2, 5};
  shape.output_depth = {5, 5, 2, 2, 0, 0};
  shape.middle_depth = -1;
  return shape;
}

UNetShape Koala1bShape() {
  UNetShape shape = FullSdxl();
  shape.input_depth = {0, 2, 6};
  shape.output_depth = {6, 6, 2, 2, 0, 0};
  shape.middle_depth = 6;
  return shape;
}

UNetShape SmallSdxlShape() {
  UNetShape shape;
  shape.class_channels = 32 + 6 * 256;
  shape.level_multipliers = {1, 1, 2};
  shape.input_depth = {0, 1, 2};
  shape.output_depth = {2, 2, 1, 1, 0, 0};
  return shape;
}

}  // namespace distorch
