// UniPC: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of
// Diffusion Models" (2023).
#include <algorithm>
#include <cmath>
#include <deque>
#include <vector>

#include "lib/base/status_macros.h"
#include "lib/sampling/solvers.h"

namespace distorch::sampling {
namespace {

enum class BOfH { kBh1, kBh2 };  // B(h) = h, or e^h - 1

// A level of the variance-preserving process that UniPC is formulated in; in float32 as its
// published code, which matters where alpha is nearly 1 or 0.
struct Level {
  explicit Level(float sigma) : sigma(sigma) {
    const float log_alpha = 0.5f * std::log(1 / (sigma * sigma + 1));
    const float variance = 1 - std::exp(2 * log_alpha);
    alpha = std::exp(log_alpha);
    std = std::sqrt(variance);
    lambda = log_alpha - 0.5f * std::log(variance);
  }

  float sigma = 0, alpha = 0, std = 0, lambda = 0;
};

// The prediction of x0 for the variance-preserving x.
absl::StatusOr<at::Tensor> Predict(SamplerRun& run, const at::Tensor& x, const Level& level) {
  const at::Tensor exploded = x * std::sqrt(level.sigma * level.sigma + 1);
  ASSIGN_OR_RETURN(const at::Tensor denoised, run.Denoise(exploded, level.sigma));
  const at::Tensor eps = Derivative(exploded, level.sigma, denoised);
  return (x - eps * level.std).div_(level.alpha);
}

struct Past {
  Level level;
  at::Tensor prediction;
};

// One update of order p (algorithms 1 and 2, for data prediction): R_p(h) rho =
// phi_p(h) / B(h).
class Update {
 public:
  // past: newest first, at least `order` of them.
  Update(const at::Tensor& x, const std::deque<Past>& past, const Level& to, size_t order,
         BOfH b_of_h)
      : newest_(past[0].prediction) {
    const Level& from = past[0].level;
    const float h = to.lambda - from.lambda, minus_h = -h, h_phi_1 = std::expm1(minus_h);
    const float b = b_of_h == BOfH::kBh1 ? minus_h : h_phi_1;
    for (size_t i = 1; i < order; ++i) {
      ratios_.push_back((past[i].level.lambda - from.lambda) / h);
      differences_.push_back((past[i].prediction - newest_).div_(ratios_.back()));
    }
    ratios_.push_back(1);
    float h_phi_k = h_phi_1 / minus_h - 1, factorial = 1;
    for (size_t i = 1; i <= order; ++i) {
      right_side_.push_back(h_phi_k * factorial / b);
      factorial *= static_cast<float>(i + 1);
      h_phi_k = h_phi_k / minus_h - 1 / factorial;
    }
    scale_ = to.alpha * b;
    base_ = (x * (to.std / from.std)).sub_(newest_, to.alpha * h_phi_1);
  }

  at::Tensor Predicted() const {
    const size_t count = differences_.size();
    const std::vector<float> rho = count == 1 ? std::vector<float>{0.5f} : Solve(count);
    return Moved(rho);
  }

  // `prediction`: of x0 at the predicted state.
  at::Tensor Corrected(const at::Tensor& prediction) const {
    const size_t count = ratios_.size();
    const std::vector<float> rho = count == 1 ? std::vector<float>{0.5f} : Solve(count);
    return Moved(rho).sub_(prediction - newest_, scale_ * rho.back());
  }

 private:
  std::vector<float> Solve(size_t count) const {
    if (count == 0) return {};
    std::vector<float> matrix;
    for (size_t row = 0; row < count; ++row) {
      for (size_t column = 0; column < count; ++column) {
        matrix.push_back(std::pow(ratios_[column], static_cast<float>(row)));
      }
    }
    return SolveLinear(std::move(matrix), {right_side_.begin(), right_side_.begin() + count});
  }

  at::Tensor Moved(const std::vector<float>& rho) const {
    at::Tensor x = base_.clone();
    for (size_t k = 0; k < differences_.size(); ++k) x.sub_(differences_[k], scale_ * rho[k]);
    return x;
  }

  const at::Tensor newest_;
  std::vector<float> ratios_, right_side_;
  std::vector<at::Tensor> differences_;
  at::Tensor base_;
  float scale_ = 0;
};

// UniPC-3 with the orders rising at the start and falling at the end, one evaluation a step: the
// corrector's evaluation also is the next predictor's. The last step is not corrected.
absl::StatusOr<at::Tensor> SampleUniPc(SamplerRun& run, at::Tensor x, BOfH b_of_h) {
  const int steps = run.steps();
  const int max_order = std::clamp(steps - 1, 1, 3);
  x = x / std::sqrt(1 + run.sigma(0) * run.sigma(0));
  std::deque<Past> past;
  ASSIGN_OR_RETURN(at::Tensor prediction, Predict(run, x, Level(run.sigma(0))));
  past.push_front({Level(run.sigma(0)), std::move(prediction)});
  for (int i = 1; i <= steps; ++i) {
    const Level to(run.sigma(i));
    const int order = i < max_order ? i : std::min(max_order, steps + 1 - i);
    const Update update(x, past, to, order, b_of_h);
    x = update.Predicted();
    const at::Tensor denoised = past[0].prediction;
    if (i < steps) {
      ASSIGN_OR_RETURN(at::Tensor prediction, Predict(run, x, to));
      x = update.Corrected(prediction);
      past.push_front({to, std::move(prediction)});
      if (past.size() > static_cast<size_t>(max_order)) past.pop_back();
    }
    RETURN_IF_ERROR(run.StepDone(i - 1, x / to.alpha, denoised));
  }
  return x / Level(run.sigma(steps)).alpha;
}

}  // namespace

absl::StatusOr<at::Tensor> SampleUniPcBh1(SamplerRun& run, at::Tensor x) {
  return SampleUniPc(run, std::move(x), BOfH::kBh1);
}

absl::StatusOr<at::Tensor> SampleUniPcBh2(SamplerRun& run, at::Tensor x) {
  return SampleUniPc(run, std::move(x), BOfH::kBh2);
}

}  // namespace distorch::sampling
