#include "tests/lib/pipeline/image_samples.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

namespace distorch {

std::string ReadSample(const std::string& name) {
  std::ifstream file(std::string(DISTORCH_CORPUS_DIR) + "/" + name, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.empty()) {
    std::cerr << "cannot read the sample " << name << "\n";
    std::exit(1);
  }
  return bytes;
}

Image8 SmoothImage(int width, int height, int channels) {
  Image8 image{.width = width, .height = height, .channels = channels, .pixels = {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const uint8_t color[] = {static_cast<uint8_t>(255 * x / width),
                               static_cast<uint8_t>(255 * y / height),
                               static_cast<uint8_t>(127 * (x + y) / (width + height)), 255};
      image.pixels.insert(image.pixels.end(), color, color + channels);
    }
  }
  return image;
}

int LargestDifference(const Image8& a, const Image8& b) {
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.height, b.height);
  if (a.width != b.width || a.height != b.height) return 255;
  int largest = 0;
  for (size_t i = 0; i < static_cast<size_t>(a.width) * a.height; ++i) {
    for (int c = 0; c < std::min(a.channels, b.channels); ++c)
      largest =
          std::max(largest, std::abs(a.pixels[i * a.channels + c] - b.pixels[i * b.channels + c]));
  }
  return largest;
}

void ExpectPixel(const Image8& image, int x, int y, const std::vector<int>& expected, int tolerance,
                 const std::string& what) {
  ASSERT_EQ(static_cast<size_t>(image.channels), expected.size()) << what;
  const size_t pixel = static_cast<size_t>(y) * image.width + x;
  for (int c = 0; c < image.channels; ++c) {
    EXPECT_NEAR(image.pixels[pixel * image.channels + c], expected[c], tolerance)
        << what << ", channel " << c << " at " << x << ", " << y;
  }
}

}  // namespace distorch
