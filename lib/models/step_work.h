// How much each block of a model computes, from names and shapes: pure, and free of LibTorch.
// Matrix products and convolutions are counted exactly, attention by its two products, what is
// elementwise by the bytes it moves.
#ifndef LIB_MODELS_STEP_WORK_H_
#define LIB_MODELS_STEP_WORK_H_

#include <cstdint>

#include "lib/distorch/step_work.h"

namespace distorch::models {

// What one evaluation is given.
struct StepSize {
  int64_t height = 64, width = 64;  // of the latent
  int64_t batch = 2;                // both halves of classifier-free guidance
  int64_t element_bytes = 2;        // of an activation
  int64_t context = 0;              // tokens of the text; 0: as many as are usual for the family
};

// One evaluation of lib/nn's UNet, MmDit and Flux, whose blocks `shape` must be.
StepWork UNetWork(const ModelShape& shape, const StepSize& size);
StepWork MmDitWork(const ModelShape& shape, const StepSize& size);
StepWork FluxWork(const ModelShape& shape, const StepSize& size);
// Text encoders of any kind, over `batch` texts.
StepWork TextWork(const ModelShape& shape, int64_t batch, int64_t element_bytes);

}  // namespace distorch::models

#endif  // LIB_MODELS_STEP_WORK_H_
