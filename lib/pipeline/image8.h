// A picture in memory, and what is written beside it.
#ifndef LIB_PIPELINE_IMAGE8_H_
#define LIB_PIPELINE_IMAGE8_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace distorch {

// 8-bit interleaved RGB (channels 3) or RGBA (channels 4), rows from the top.
struct Image8 {
  int width = 0, height = 0, channels = 3;
  std::vector<uint8_t> pixels;  // height * width * channels
};

using ImageText = std::vector<std::pair<std::string, std::string>>;  // keyword -> UTF-8 text

// The most pixels that a decoder takes unless it is told otherwise.
constexpr int64_t kMaxImagePixels = 64ll << 20;

// What every encoder asks of its image: 3 or 4 channels, a size, and as many bytes. Else
// INVALID_ARGUMENT.
absl::Status CheckImage(const Image8& image);

}  // namespace distorch

#endif  // LIB_PIPELINE_IMAGE8_H_
