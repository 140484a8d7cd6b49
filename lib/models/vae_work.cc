#include "lib/models/vae_work.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace distorch::models {
namespace {

// The level L of "first_stage_model.decoder.up.L.…", whose map has 2^-L of the picture's sides; −1
// where `name` is of no level.
int LevelOf(std::string_view name) {
  const std::vector<std::string_view> parts =
      absl::StrSplit(absl::string_view(name.data(), name.size()), '.');
  int level = -1;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if ((parts[i] == "up" || parts[i] == "down") &&
        !absl::SimpleAtoi(absl::string_view(parts[i + 1].data(), parts[i + 1].size()), &level))
      return -1;
  }
  return level;
}

int LevelsOf(const ModelShape& shape) {
  int levels = 1;
  for (const BlockShape& block : shape.blocks) levels = std::max(levels, LevelOf(block.name) + 1);
  return levels;
}

// The most of `coder`'s ("decoder", "encoder") operations for a picture of `pixels`.
int64_t MostAtOnce(const ModelShape& shape, std::string_view coder, double pixels,
                   int64_t element_bytes) {
  const int last = LevelsOf(shape) - 1;
  const auto area = [pixels](int level) { return pixels / static_cast<double>(1 << (2 * level)); };
  double most = 0;
  for (const BlockShape& block : shape.blocks) {
    const std::string_view name = block.name;
    if (block.weight.empty() || !absl::StrContains(name, coder)) continue;
    const bool at_picture = absl::EndsWith(name, coder == "decoder" ? "r.conv_out" : "r.conv_in") ||
                            absl::EndsWith(name, "decoder.norm_out");
    const int level = LevelOf(name) >= 0 ? LevelOf(name) : at_picture ? 0 : last;
    const int after = absl::StrContains(name, ".upsample.")     ? level - 1
                      : absl::StrContains(name, ".downsample.") ? level + 1
                                                                : level;
    const auto in = static_cast<double>(block.weight[block.weight.size() > 1 ? 1 : 0]);
    const auto out = static_cast<double>(block.weight[0]);
    most = std::max(most, area(level) * in + area(after) * out);
  }
  return static_cast<int64_t>(most * static_cast<double>(element_bytes));
}

}  // namespace

int64_t DecodeBytesAtOnce(const ModelShape& shape, int64_t height, int64_t width,
                          int64_t element_bytes) {
  const int64_t downscale = int64_t{1} << (LevelsOf(shape) - 1);
  const double pixels =
      static_cast<double>(height * downscale) * static_cast<double>(width * downscale);
  return MostAtOnce(shape, "decoder", pixels, element_bytes);
}

int64_t EncodeBytesAtOnce(const ModelShape& shape, int64_t height, int64_t width,
                          int64_t element_bytes) {
  const double pixels = static_cast<double>(height) * static_cast<double>(width);
  return MostAtOnce(shape, "encoder", pixels, element_bytes);
}

}  // namespace distorch::models
