#include "lib/models/latent_format.h"

namespace distorch::models {

const LatentFormat& Sd1LatentFormat() {
  // The colours are a least-squares fit published with "Decoding latents to RGB without upscaling"
  // (K. Turner, 2022).
  static const LatentFormat kFormat = {
      .channels = 4,
      .downscale = 8,
      .scale = 0.18215,
      .to_rgb = {{0.298f, 0.207f, 0.208f},
                 {0.187f, 0.286f, 0.173f},
                 {-0.158f, 0.189f, 0.264f},
                 {-0.184f, -0.271f, -0.473f}},
  };
  return kFormat;
}

}  // namespace distorch::models
