// The tensors of made-up MMDiTs and Flux transformers, for what no golden checkpoint shows.
#ifndef TESTS_LIB_MODELS_TRANSFORMER_HEADER_H_
#define TESTS_LIB_MODELS_TRANSFORMER_HEADER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/safetensors_writer.h"

namespace distorch {

// The defaults are small.
struct MmDitShape {
  int64_t width = 128;
  int64_t context_width = 96, pooled_width = 48;
  int64_t position_side = 8;
  bool qk_norm = false;
  int64_t dual_blocks = 0;  // the first blocks attend to themselves, too
};
struct FluxShape {
  int64_t in_channels = 16;
  int64_t width = 256;
  int64_t context_width = 96, pooled_width = 48;
  int64_t double_blocks = 2, single_blocks = 2;
  bool guidance = true;
};

// Without data, named PREFIX"x_embedder.proj.weight" and so on.
std::vector<SafetensorsEntry> MmDitHeader(const MmDitShape& shape, DType dtype = DType::kF16,
                                          const std::string& prefix = "model.diffusion_model.");
std::vector<SafetensorsEntry> FluxHeader(const FluxShape& shape, DType dtype = DType::kF16,
                                         const std::string& prefix = "model.diffusion_model.");

// The published sizes.
MmDitShape Sd35LargeShape();
MmDitShape Sd35MediumShape();
FluxShape FluxDevShape();

}  // namespace distorch

#endif  // TESTS_LIB_MODELS_TRANSFORMER_HEADER_H_
