#include "lib/models/step_work.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace distorch::models {
namespace {

constexpr int64_t kPatch = 2;  // of the transformers
// Tokens of a usual text, as each kind of model is given it.
constexpr int64_t kUNetText = 77, kMmDitText = 154, kFluxText = 256, kEncodedText = 77;

// y = W x over `rows` vectors or pixels; what has no matrix is elementwise.
StepWork::Block Product(const BlockShape& block, int64_t rows, int64_t element_bytes) {
  if (block.weight.empty()) return {};
  const auto count = static_cast<double>(rows);
  const auto elements = static_cast<double>(std::accumulate(
      block.weight.begin(), block.weight.end(), int64_t{1}, std::multiplies<int64_t>()));
  const bool is_matrix = block.weight.size() > 1;
  const auto in = static_cast<double>(block.weight[is_matrix ? 1 : 0]);
  const auto out = static_cast<double>(block.weight[0]);
  const double bytes = count * (in + out) * static_cast<double>(element_bytes);
  return {.flops = is_matrix ? 2 * count * elements : 0,
          .activation_bytes = bytes,
          .bytes_at_once = bytes};
}

// The work of a walk over a model's blocks, in their order.
class Walk {
 public:
  Walk(const ModelShape& shape, const StepSize& size) : size_(size) {
    for (const UnitSpan& unit : shape.units) work_.units.push_back({unit, {}});
  }

  int64_t batch() const { return size_.batch; }
  int64_t context(int64_t usual) const { return size_.context > 0 ? size_.context : usual; }

  void AddProduct(const BlockShape& block, int64_t rows) {
    work_.blocks.push_back(Product(block, rows, size_.element_bytes));
  }
  // To the block added last: `queries` tokens of `width` channels that attend to `keys` tokens, in
  // each item of the batch.
  void AddAttention(int64_t queries, int64_t keys, int64_t width) {
    const auto q = static_cast<double>(queries), k = static_cast<double>(keys);
    const double channels = static_cast<double>(width) * static_cast<double>(size_.batch);
    const double bytes = 2 * (q + k) * channels * static_cast<double>(size_.element_bytes);
    StepWork::Block& block = work_.blocks.back();
    block.flops += 4 * q * k * channels;
    block.activation_bytes += bytes;
    block.bytes_at_once = std::max(block.bytes_at_once, bytes);
  }
  // The block added last need not make the enlarged map that it convolves.
  void ReadsSmallerMap(const BlockShape& block, int64_t rows) {
    constexpr double kSmaller = 0.75;  // a map of half the sides
    work_.blocks.back().bytes_at_once -=
        kSmaller * static_cast<double>(Bytes(rows, block.weight[1]));
  }

  // Bytes of [batch, rows, channels].
  int64_t Bytes(int64_t rows, int64_t channels) const {
    return size_.batch * rows * channels * size_.element_bytes;
  }
  std::vector<StepWork::Unit>& units() { return work_.units; }
  // Each unit is given `bytes` by the one before it, and the last gives as much.
  void Chain(int64_t bytes) {
    for (size_t i = 0; i < work_.units.size(); ++i)
      work_.units[i].inputs = {{static_cast<int>(i) - 1, bytes}};
    work_.output_bytes = bytes;
  }
  void set_output_bytes(int64_t bytes) { work_.output_bytes = bytes; }

  StepWork Finish() && {
    for (const StepWork::Block& block : work_.blocks) {
      work_.largest_activations =
          std::max(work_.largest_activations, static_cast<int64_t>(block.activation_bytes));
    }
    return std::move(work_);
  }

 private:
  const StepSize& size_;
  StepWork work_;
};

// The area of the feature map through a UNet's blocks.
class UNetWalk {
 public:
  UNetWalk(const ModelShape& shape, const StepSize& size)
      : shape_(shape), walk_(shape, size), height_(size.height), width_(size.width) {}

  StepWork Run() && {
    size_t unit = 0;
    for (size_t i = 0; i < shape_.blocks.size(); ++i) {
      AddBlock(shape_.blocks[i]);
      if (unit < shape_.units.size() && i + 1 == shape_.units[unit].end) EndUnit(unit++);
    }
    walk_.set_output_bytes(flowing_.bytes);
    return std::move(walk_).Finish();
  }

 private:
  void AddBlock(const BlockShape& block) {
    const std::string_view name = block.name;
    const bool samples_down = absl::EndsWith(name, ".op");
    const bool samples_up =
        absl::StrContains(name, "output_blocks.") && absl::EndsWith(name, ".conv");
    if (samples_down) {
      height_ = (height_ + 1) / 2;
      width_ = (width_ + 1) / 2;
    }
    if (samples_up) {
      height_ *= 2;
      width_ *= 2;
    }
    const int64_t area = height_ * width_;
    if (absl::StrContains(name, "_embed.") || absl::StrContains(name, "label_emb.") ||
        absl::StrContains(name, ".emb_layers.")) {
      walk_.AddProduct(block, walk_.batch());
    } else if (absl::EndsWith(name, "attn2.to_k") || absl::EndsWith(name, "attn2.to_v")) {
      walk_.AddProduct(block, walk_.batch() * walk_.context(kUNetText));
    } else {
      walk_.AddProduct(block, walk_.batch() * area);
    }
    if (samples_up && block.weight.size() > 1) walk_.ReadsSmallerMap(block, area);
    if (absl::EndsWith(name, "attn1.to_out.0")) walk_.AddAttention(area, area, block.weight[0]);
    if (absl::EndsWith(name, "attn2.to_out.0"))
      walk_.AddAttention(area, walk_.context(kUNetText), block.weight[0]);
  }

  // "input_blocks.3" of a unit's first block.
  std::string Group(size_t unit) const {
    const std::vector<std::string_view> parts =
        absl::StrSplit(shape_.blocks[shape_.units[unit].first].name, '.');
    return parts.size() < 3 ? "" : std::string(parts[1]) + "." + std::string(parts[2]);
  }

  void EndUnit(size_t unit) {
    std::vector<StepWork::Input>& inputs = walk_.units()[unit].inputs;
    inputs.push_back(flowing_);
    const std::string group = Group(unit);
    const bool begins_group = unit == 0 || Group(unit - 1) != group;
    if (begins_group && absl::StartsWith(group, "output_blocks") && !skips_.empty()) {
      inputs.push_back(skips_.back());
      skips_.pop_back();
    }
    const BlockShape& last = shape_.blocks[shape_.units[unit].end - 1];
    flowing_ = {static_cast<int>(unit), walk_.Bytes(height_ * width_, last.weight[0])};
    const bool ends_group = unit + 1 == shape_.units.size() || Group(unit + 1) != group;
    if (ends_group && absl::StartsWith(group, "input_blocks")) skips_.push_back(flowing_);
  }

  const ModelShape& shape_;
  Walk walk_;
  int64_t height_, width_;
  StepWork::Input flowing_;  // what the unit before gives
  std::vector<StepWork::Input> skips_;
};

int64_t Patches(const StepSize& size) {
  return ((size.height + kPatch - 1) / kPatch) * ((size.width + kPatch - 1) / kPatch);
}

}  // namespace

StepWork UNetWork(const ModelShape& shape, const StepSize& size) {
  return UNetWalk(shape, size).Run();
}

StepWork MmDitWork(const ModelShape& shape, const StepSize& size) {
  Walk walk(shape, size);
  const int64_t image = Patches(size), text = walk.context(kMmDitText);
  int64_t width = 0;
  for (const BlockShape& block : shape.blocks) {
    const std::string_view name = block.name;
    if (absl::StrContains(name, "adaLN_modulation") || absl::StrContains(name, ".t_embedder.") ||
        absl::StrContains(name, ".y_embedder.")) {
      walk.AddProduct(block, size.batch);
    } else if (absl::StrContains(name, "context_")) {
      walk.AddProduct(block, size.batch * text);
    } else {
      walk.AddProduct(block, size.batch * image);
    }
    if (absl::EndsWith(name, "x_block.attn.proj")) {
      width = block.weight[0];
      walk.AddAttention(image + text, image + text, width);
    }
    if (absl::EndsWith(name, "x_block.attn2.proj"))
      walk.AddAttention(image, image, block.weight[0]);
  }
  walk.Chain(walk.Bytes(image + text, width));
  return std::move(walk).Finish();
}

StepWork FluxWork(const ModelShape& shape, const StepSize& size) {
  Walk walk(shape, size);
  const int64_t image = Patches(size), text = walk.context(kFluxText);
  int64_t width = 0;
  for (const BlockShape& block : shape.blocks) {
    const std::string_view name = block.name;
    const bool is_single = absl::StrContains(name, ".single_blocks.");
    if (absl::StrContains(name, "_mod.") || absl::StrContains(name, "modulation") ||
        absl::EndsWith(name, "_layer")) {
      walk.AddProduct(block, size.batch);
    } else if (is_single) {
      walk.AddProduct(block, size.batch * (image + text));
    } else if (absl::StrContains(name, ".txt_")) {
      walk.AddProduct(block, size.batch * text);
    } else {
      walk.AddProduct(block, size.batch * image);
    }
    if (absl::EndsWith(name, "img_attn.proj") || (is_single && absl::EndsWith(name, "linear2"))) {
      width = block.weight[0];
      walk.AddAttention(image + text, image + text, width);
    }
  }
  walk.Chain(walk.Bytes(image + text, width));
  return std::move(walk).Finish();
}

StepWork TextWork(const ModelShape& shape, int64_t batch, int64_t element_bytes) {
  const StepSize size = {.batch = batch, .element_bytes = element_bytes};
  Walk walk(shape, size);
  for (const BlockShape& block : shape.blocks) {
    if (absl::StrContains(block.name, "embed") || absl::EndsWith(block.name, "shared")) {
      walk.AddProduct({block.name, {}}, 0);  // a look-up
    } else {
      walk.AddProduct(block, batch * kEncodedText);
    }
  }
  return std::move(walk).Finish();
}

}  // namespace distorch::models
