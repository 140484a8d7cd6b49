// A golden checkpoint on a core of its own, loaded in several ways.
#ifndef TESTS_LIB_SERVING_PLACED_FIXTURE_H_
#define TESTS_LIB_SERVING_PLACED_FIXTURE_H_

#include <memory>
#include <string>

#include "lib/serving/daemon_core.h"
#include "tests/support/core_client.h"
#include "tests/support/golden_case.h"

namespace distorch {

class PlacedFixture {
 public:
  // Makes the checkpoint when it is missing. No core yet.
  explicit PlacedFixture(const std::string& family);

  // Options of a core that finds the checkpoint and the family's adapters; computes in fp32.
  CoreOptions Options(const std::string& simulate_devices) const;
  // In place of the core before, if any. Ends the test program when it cannot be made.
  void Start(const CoreOptions& options, Observer* observer = nullptr);

  const GoldenCase& golden() const { return golden_; }
  DaemonCore& core() { return *core_; }
  CoreClient& client() { return *client_; }

  // Computes on cuda:0, the text encoder and the VAE on the cpu; `split` and `execution` may be
  // empty.
  LoadSpec Spec(const std::string& split, const std::string& execution) const;
  LoadResult Load(const LoadSpec& spec);
  // The golden file's first evaluation, its data.
  std::string Denoise(const LoadResult& loaded);
  // A small picture of its conditioning in so many of Euler's steps.
  void Sample(const LoadResult& loaded, int steps);

 private:
  const GoldenCase golden_;
  std::string ckpt_name_;
  std::unique_ptr<DaemonCore> core_;
  std::unique_ptr<CoreClient> client_;
};

}  // namespace distorch

#endif  // TESTS_LIB_SERVING_PLACED_FIXTURE_H_
