#include "lib/base/torch_status.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "lib/base/status_error.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

absl::Status Throwing(const auto& exception) {
  return RunTorch([&]() -> absl::Status { throw exception; });
}

TEST(RunTorchTest, PassesTheBodysStatusOn) {
  EXPECT_TRUE(RunTorch([] { return absl::OkStatus(); }).ok());
  EXPECT_EQ(RunTorch([] { return absl::NotFoundError("no such"); }),
            absl::NotFoundError("no such"));
}

TEST(RunTorchTest, AThrownStatusIsReturned) {
  EXPECT_EQ(Throwing(StatusError(absl::DataLossError("cut short"))),
            absl::DataLossError("cut short"));
}

TEST(RunTorchTest, RunsWithoutAutograd) {
  EXPECT_TRUE(RunTorch([] {
                EXPECT_TRUE(c10::InferenceMode::is_enabled());
                return absl::OkStatus();
              }).ok());
  EXPECT_FALSE(c10::InferenceMode::is_enabled());
}

TEST(RunTorchTest, AShapeErrorIsInternalInOneLine) {
  const absl::Status status = RunTorch([] {
    at::mm(at::ones({2, 3}), at::ones({2, 3}));
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)");
}

TEST(RunTorchTest, OnlyTheFirstLineOfAMessageIsKept) {
  const absl::Status status = RunTorch([]() -> absl::Status { TORCH_CHECK(false, "one\ntwo"); });
  EXPECT_EQ(status, absl::InternalError("one"));
  EXPECT_EQ(Throwing(std::runtime_error("one\ntwo")), absl::InternalError("one"));
}

TEST(RunTorchTest, ADevicesOutOfMemoryIsResourceExhausted) {
  const absl::Status status = RunTorch([]() -> absl::Status {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "cuda:0: out of memory\nhint");
  });
  EXPECT_EQ(status, absl::ResourceExhaustedError("cuda:0: out of memory"));
}

TEST(RunTorchTest, HostMemoryExhaustedIsResourceExhausted) {
  const absl::Status status = RunTorch([] {
    at::empty({std::numeric_limits<int64_t>::max() / 8});
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\n")));
  EXPECT_EQ(Throwing(std::bad_alloc()).code(), absl::StatusCode::kResourceExhausted);
}

TEST(RunTorchOrTest, YieldsTheValueOrTheError) {
  const absl::StatusOr<int64_t> numel = RunTorchOr<int64_t>([] {
    return at::ones({2, 3}).numel();
  });
  ASSERT_TRUE(numel.ok()) << numel.status();
  EXPECT_EQ(*numel, 6);
  const absl::StatusOr<int64_t> refused = RunTorchOr<int64_t>(
      []() -> absl::StatusOr<int64_t> { return absl::InvalidArgumentError("refused"); });
  EXPECT_EQ(refused.status(), absl::InvalidArgumentError("refused"));
  const absl::StatusOr<at::Tensor> thrown =
      RunTorchOr<at::Tensor>([] { return at::ones({2}).view({3}); });
  EXPECT_EQ(thrown.status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace distorch
