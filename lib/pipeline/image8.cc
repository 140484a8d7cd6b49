#include "lib/pipeline/image8.h"

#include "absl/strings/str_cat.h"

namespace distorch {

absl::Status CheckImage(const Image8& image) {
  if (image.channels != 3 && image.channels != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("an image of ", image.channels, " channels; allowed are 3 and 4"));
  }
  if (image.width <= 0 || image.height <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an image of ", image.width, " x ", image.height, " pixels"));
  }
  const size_t expected = static_cast<size_t>(image.width) * image.height * image.channels;
  if (image.pixels.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(image.pixels.size(), " bytes of pixels where ", expected, " belong"));
  }
  return absl::OkStatus();
}

}  // namespace distorch
