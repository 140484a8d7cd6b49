// The samplers themselves; private to this folder. Each is a SamplerFunction; its comment at the
// definition says which paper's which algorithm it is.
#ifndef LIB_SAMPLING_SOLVERS_H_
#define LIB_SAMPLING_SOLVERS_H_

#include <span>
#include <vector>

#include "lib/sampling/sampler.h"

namespace distorch::sampling {

// solvers_single_step.cc
absl::StatusOr<at::Tensor> SampleEuler(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleEulerAncestral(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleEulerCfgPp(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleEulerAncestralCfgPp(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleHeun(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleHeunPp2(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpm2(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpm2Ancestral(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDdpm(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleLcm(SamplerRun& run, at::Tensor x);

// solvers_multistep.cc
absl::StatusOr<at::Tensor> SampleLms(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleIpndm(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleIpndmV(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDeis(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleResMultistep(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleResMultistepCfgPp(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleResMultistepAncestral(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleResMultistepAncestralCfgPp(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleGradientEstimation(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleGradientEstimationCfgPp(SamplerRun& run, at::Tensor x);

// solvers_dpm.cc
absl::StatusOr<at::Tensor> SampleDpmFast(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmAdaptive(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2sAncestral(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2sAncestralCfgPp(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2m(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2mCfgPp(SamplerRun& run, at::Tensor x);

// solvers_unipc.cc
absl::StatusOr<at::Tensor> SampleUniPcBh1(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleUniPcBh2(SamplerRun& run, at::Tensor x);

// solvers_sde.cc
absl::StatusOr<at::Tensor> SampleDpmPpSde(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2mSde(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp2mSdeHeun(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleDpmPp3mSde(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleErSde(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleSeeds2(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleSeeds3(SamplerRun& run, at::Tensor x);

// solvers_sa.cc
absl::StatusOr<at::Tensor> SampleSaSolver(SamplerRun& run, at::Tensor x);
absl::StatusOr<at::Tensor> SampleSaSolverPece(SamplerRun& run, at::Tensor x);

// What solvers share; solver_math.cc.

// dx/dsigma of the probability flow ODE (Karras et al., 2022, algorithm 1, line 4).
at::Tensor Derivative(const at::Tensor& x, float sigma, const at::Tensor& denoised);

// x moved along a slope. Rounded twice on purpose, not by one fused operation: in a model of zero
// terminal SNR the first x is some 4,000 times the result, and what the two round differently shows
// in the image.
at::Tensor Moved(const at::Tensor& x, const at::Tensor& slope, float distance);

// How an ancestral step is split: deterministically down to `down`, then up by noise: scale * x +
// up * noise.
struct AncestralStep {
  float down = 0;
  float up = 0;
  float scale = 1;
};

// The split of Song et al. (2021), "Score-Based Generative Modeling", appendix F, in a
// variance-exploding process. eta: the share of noise.
AncestralStep SplitAncestral(float from, float to, float eta = 1);

// The same for either process: in a rectified flow noising up also shrinks the signal.
AncestralStep SplitAncestral(const ModelSampling& sampling, float from, float to);

// log(alpha / sigma), the time of the exponential integrators (Lu et al., "DPM-Solver", 2022), and
// its inverse.
float HalfLogSnr(const ModelSampling& sampling, float sigma);
float SigmaOfHalfLogSnr(const ModelSampling& sampling, float half_log_snr);

// The run's levels, a flow's first of 1 (no signal, infinite half-log-SNR) moved just below it.
std::vector<float> SigmasOfFiniteSnr(const SamplerRun& run);

// The Lagrange basis polynomial of nodes[index], at `at`.
double LagrangeBasis(std::span<const double> nodes, size_t index, double at);

// Solves the n x n system matrix * result = rhs (row-major, n = rhs.size() <= 4) in float32.
std::vector<float> SolveLinear(std::vector<float> matrix, std::vector<float> rhs);

}  // namespace distorch::sampling

#endif  // LIB_SAMPLING_SOLVERS_H_
