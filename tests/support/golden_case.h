// A family's golden results: cases.json and expected.safetensors (tests/golden/README.md).
#ifndef TESTS_SUPPORT_GOLDEN_CASE_H_
#define TESTS_SUPPORT_GOLDEN_CASE_H_

#include <memory>
#include <string>
#include <vector>

#include "lib/base/host_tensor.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "nlohmann/json.hpp"

namespace distorch {

class GoldenCase {
 public:
  // `folder` holds the two files. Ends the test program when they cannot be read.
  explicit GoldenCase(const std::string& folder);

  const nlohmann::json& cases() const { return cases_; }
  bool Has(const std::string& name) const { return expected_->index().Find(name) != nullptr; }
  // Of every expected tensor, in the file's order.
  std::vector<std::string> names() const;
  // An empty tensor when there is none of that name.
  HostTensor Expected(const std::string& name) const;

 private:
  nlohmann::json cases_;
  std::shared_ptr<const CheckpointFile> expected_;
};

// max |actual - expected| / max |expected|, over float32 tensors; infinity when the shapes differ
// or a value is not finite. A last dimension longer than the expected one is cut to it.
double RelativeError(const HostTensor& actual, const HostTensor& expected);

}  // namespace distorch

#endif  // TESTS_SUPPORT_GOLDEN_CASE_H_
