#include "tests/support/golden_case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>
#include <vector>

namespace distorch {
namespace {

std::vector<float> Floats(const HostTensor& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace

GoldenCase::GoldenCase(const std::string& folder) {
  std::ifstream file(folder + "/cases.json");
  cases_ = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  auto expected = CheckpointFile::Open(folder + "/expected.safetensors");
  if (cases_.is_discarded() || !expected.ok()) {
    std::cerr << folder << ": cannot read the golden files: " << expected.status() << "\n";
    std::exit(1);
  }
  expected_ = *std::move(expected);
}

std::vector<std::string> GoldenCase::names() const {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : expected_->index().tensors()) names.push_back(tensor.name);
  return names;
}

HostTensor GoldenCase::Expected(const std::string& name) const {
  HostTensor tensor;
  const TensorInfo* info = expected_->index().Find(name);
  if (info == nullptr) return tensor;
  const auto bytes = expected_->Data(*info);
  tensor.shape = info->shape;
  tensor.data.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return tensor;
}

double RelativeError(const HostTensor& actual, const HostTensor& expected) {
  constexpr double kNothingAlike = std::numeric_limits<double>::infinity();
  if (actual.shape.size() != expected.shape.size() || expected.shape.empty()) return kNothingAlike;
  if (!std::equal(expected.shape.begin(), expected.shape.end() - 1, actual.shape.begin()))
    return kNothingAlike;
  const auto width = static_cast<size_t>(expected.shape.back());
  const auto actual_width = static_cast<size_t>(actual.shape.back());
  if (actual_width < width) return kNothingAlike;
  const std::vector<float> a = Floats(actual), e = Floats(expected);
  double error = 0, largest = 0;
  for (size_t i = 0; i < e.size(); ++i) {
    const float value = a[i / width * actual_width + i % width];
    if (!std::isfinite(value)) return kNothingAlike;
    error = std::max(error, std::abs(static_cast<double>(value) - e[i]));
    largest = std::max(largest, std::abs(static_cast<double>(e[i])));
  }
  return error / std::max(largest, std::numeric_limits<double>::min());
}

}  // namespace distorch
