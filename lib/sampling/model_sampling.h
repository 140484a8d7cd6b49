// What a diffusion model was trained to predict, and at which noise levels.
//
// Notation of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
// (2022): a noised latent is x = x0 + sigma * n for the variance-exploding kinds (kEps, kV, kEdm),
// and x = (1 - sigma) * x0 + sigma * n for rectified flows (kFlow; Liu et al., 2022). Noise levels
// are float32, as checkpoints were trained and published with: computing them wider gives other
// images.
#ifndef LIB_SAMPLING_MODEL_SAMPLING_H_
#define LIB_SAMPLING_MODEL_SAMPLING_H_

#include <ATen/ATen.h>

#include <vector>

namespace distorch::sampling {

// What the network outputs.
enum class Prediction {
  kEps,   // the noise n (Ho et al., "Denoising Diffusion Probabilistic Models", 2020)
  kV,     // the velocity of Salimans & Ho, "Progressive Distillation" (2022), appendix D
  kEdm,   // F_theta of Karras et al. (2022), eq. 7
  kFlow,  // n - x0 (Lipman et al., "Flow Matching for Generative Modeling", 2022)
};

// Which noise levels exist and how the network is told of one.
enum class NoiseLevels {
  kDiscrete,       // DDPM's table over "scaled linear" betas; timesteps are indices into it
  kDiscreteFlow,   // sigma = shift * t / (1 + (shift - 1) * t) (Esser et al., "Scaling Rectified
                   // Flow", 2024, eq. 23)
  kFlux,           // the same with shift = exp(mu), timesteps 0…1 (Flux)
  kContinuousEdm,  // log-uniform between two bounds; timesteps are c_noise = ln(sigma) / 4 (Karras
                   // et al., table 1)
};

// Published with a checkpoint family; the fields a kind of noise levels does not name are ignored.
struct ModelSamplingConfig {
  Prediction prediction = Prediction::kEps;
  NoiseLevels levels = NoiseLevels::kDiscrete;

  // kDiscrete. The defaults are Stable Diffusion's.
  double linear_start = 0.00085, linear_end = 0.012;
  int timesteps = 1000;
  bool zero_terminal_snr =
      false;  // Lin et al., "Common Diffusion Noise Schedules … are Flawed" (2023), algorithm 1

  // kDiscreteFlow and kFlux (there it is mu). Timesteps of kDiscreteFlow run from 0 to
  // `multiplier`.
  double shift = 1.0;
  double multiplier = 1000.0;

  // kContinuousEdm.
  double sigma_min = 0.002, sigma_max = 120.0;
  double sigma_data = 1.0;
};

// Immutable; may be used from many threads. Tensors keep their device and dtype; `sigma` holds for
// the whole batch.
class ModelSampling {
 public:
  explicit ModelSampling(const ModelSamplingConfig& config);

  // Ascending; what schedulers choose from. Never empty.
  const std::vector<float>& sigmas() const { return sigmas_; }
  float sigma_min() const { return sigmas_.front(); }
  float sigma_max() const { return sigmas_.back(); }
  bool is_flow() const { return config_.prediction == Prediction::kFlow; }

  // What the network is given for a noise level: for kDiscrete the nearest index of the table.
  float TimestepOf(float sigma) const;

  // The inverse; for kDiscrete interpolated in log(sigma), and clamped to the table.
  float SigmaOf(float timestep) const;

  // The noise level after this share (0…1) of the sampling range. At 0 and below: more than any
  // level (1 for flows); at 1 and above: 0.
  double SigmaOfPercent(double percent) const;

  // What the network is fed for the noised latent x.
  at::Tensor CalculateInput(double sigma, const at::Tensor& x) const;

  // The prediction of x0 in the network's output for x.
  at::Tensor CalculateDenoised(double sigma, const at::Tensor& output, const at::Tensor& x) const;

  // `latent` noised to the level. max_denoise: the latent counts as unknown, and the noise gets the
  // variance that a latent of variance 1 would have had (variance-exploding kinds only).
  at::Tensor NoiseScaling(double sigma, const at::Tensor& noise, const at::Tensor& latent,
                          bool max_denoise = false) const;

  // What sampling left at the level `sigma`, as a latent.
  at::Tensor InverseNoiseScaling(double sigma, const at::Tensor& latent) const;

 private:
  ModelSamplingConfig config_;
  std::vector<float> sigmas_;
  std::vector<float> log_sigmas_;  // kDiscrete only
};

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_MODEL_SAMPLING_H_
