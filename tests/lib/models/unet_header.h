// The tensors of made-up UNets, for tests of families of which there is no golden checkpoint.
#ifndef TESTS_LIB_MODELS_UNET_HEADER_H_
#define TESTS_LIB_MODELS_UNET_HEADER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/safetensors_writer.h"

namespace distorch {

struct UNetShape {
  int64_t in_channels = 4;
  int64_t width = 64;  // of the first level
  int64_t context_width = 128;
  int64_t class_channels = 0;
  bool linear_projection = true;
  int64_t blocks_per_level = 1;            // of the input side; the output side has one more
  std::vector<int64_t> level_multipliers;  // width of each level
  std::vector<int64_t> input_depth;        // transformer blocks of each ResNet block
  std::vector<int64_t> output_depth;       // from the middle outwards
  int64_t middle_depth = 1;                // 0: a ResNet block alone; −1: no middle
};

// In float16, without data, named PREFIX"input_blocks.0.0.weight" and so on.
std::vector<SafetensorsEntry> UNetHeader(const UNetShape& shape,
                                         const std::string& prefix = "model.diffusion_model.");

// The published shapes of SDXL's distillations, with full width.
UNetShape Ssd1bShape();
UNetShape VegaShape();
UNetShape Koala700mShape();
UNetShape Koala1bShape();
// SDXL's shape with narrow layers: a few MiB in float32.
UNetShape SmallSdxlShape();

}  // namespace distorch

#endif  // TESTS_LIB_MODELS_UNET_HEADER_H_
