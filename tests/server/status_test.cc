#include "server/status.h"

#include <gtest/gtest.h>

#include <string>

#include "lib/base/retry_delay.h"
#include "proto/status_details.pb.h"

namespace distorch {
namespace {

TEST(StatusTest, CodesMapOneToOne) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status mapped = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(mapped.error_code()), code);
    EXPECT_EQ(mapped.error_message(), "why");
  }
  EXPECT_EQ(CodeName(absl::ResourceExhaustedError("")), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(CodeName(absl::OkStatus()), "OK");
}

TEST(StatusTest, TheDelayToRetryAfterIsAGoogleRetryInfo) {
  const grpc::Status plain = ToGrpcStatus(absl::ResourceExhaustedError("full"));
  EXPECT_EQ(plain.error_details(), "");
  const grpc::Status status =
      ToGrpcStatus(RetryAfter(absl::ResourceExhaustedError("full"), absl::Milliseconds(2500)));
  details::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  details::RetryInfo info;
  ASSERT_TRUE(info.ParseFromString(details.details(0).value()));
  EXPECT_EQ(info.retry_delay().seconds(), 2);
  EXPECT_EQ(info.retry_delay().nanos(), 500'000'000);
}

TEST(StatusTest, CleanUtf8ReplacesOnlyWhatIsInvalid) {
  EXPECT_EQ(CleanUtf8(""), "");
  EXPECT_EQ(CleanUtf8("prüfung 漢字 🙂"), "prüfung 漢字 🙂");
  EXPECT_EQ(CleanUtf8("a\xff"
                      "b"),
            "a\uFFFDb");
  EXPECT_EQ(CleanUtf8("cut \xe6\xbc"), "cut \uFFFD\uFFFD");
  EXPECT_EQ(CleanUtf8("\xc0\xaf"), "\uFFFD\uFFFD");  // overlong
}

TEST(StatusTest, LongMessagesAreCutAtACharacter) {
  std::string text;
  for (int i = 0; i < 4000; ++i) text += "ü";
  const std::string cut = ToGrpcStatus(absl::InternalError(text)).error_message();
  EXPECT_LT(cut.size() * 3, 8000u);
  EXPECT_EQ(CleanUtf8(cut), cut);
  EXPECT_EQ(cut.substr(cut.size() - 6), " [cut]");
  const std::string plain(6000, 'x');
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(plain)).error_message(), plain);
}

}  // namespace
}  // namespace distorch
