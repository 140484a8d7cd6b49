// Image files to decode (the fuzzers' seeds), and pictures to encode.
#ifndef TESTS_LIB_PIPELINE_IMAGE_SAMPLES_H_
#define TESTS_LIB_PIPELINE_IMAGE_SAMPLES_H_

#include <string>
#include <vector>

#include "lib/pipeline/image8.h"

namespace distorch {

// A file below tests/fuzz/corpus. Ends the test program when it cannot be read.
std::string ReadSample(const std::string& name);

// Colours that change slowly, which lossy formats keep well; an alpha channel is opaque.
Image8 SmoothImage(int width, int height, int channels);

// The first min(channels) of every pixel, compared.
int LargestDifference(const Image8& a, const Image8& b);

void ExpectPixel(const Image8& image, int x, int y, const std::vector<int>& expected, int tolerance,
                 const std::string& what);

}  // namespace distorch

#endif  // TESTS_LIB_PIPELINE_IMAGE_SAMPLES_H_
