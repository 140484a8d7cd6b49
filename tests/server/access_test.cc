#include "server/access.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace distorch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kList[] = "/distorch.v1.ModelService/ListModels";
constexpr char kInfer[] = "/distorch.v1.InferenceService/Infer";
constexpr char kUnload[] = "/distorch.v1.ModelService/Unload";

std::string ErrorOf(std::string_view text) {
  const absl::StatusOr<std::vector<Token>> tokens = ParseTokens(text, "tokens.yaml");
  EXPECT_TRUE(absl::IsInvalidArgument(tokens.status())) << tokens.status();
  return std::string(tokens.status().message());
}

TEST(TokensFileTest, ReadsYamlAndJson) {
  const auto yaml = ParseTokens(
      "tokens:\n"
      "  - {name: ann, role: viewer, token: abc}\n"
      "  - name: bob\n"
      "    role: admin\n"
      "    sha256: BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\n",
      "");
  // FIPS 180-4's own example: the digest of "abc", so both entries have one token.
  EXPECT_THAT(yaml.status().message(), HasSubstr("tokens[1]: has the same token"));
  const auto json = ParseTokens(
      R"({"tokens": [{"name": "ann", "role": "user", "sha256":
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ae"},
      {"name": "bob", "role": "admin", "token": "abc"}]})",
      "");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->at(0).name, "ann");
  EXPECT_EQ(json->at(0).role, Role::kUser);
  EXPECT_EQ(json->at(1).digest, DigestOf("abc"));
  EXPECT_EQ(json->at(1).digest[0], 0xba);
}

TEST(TokensFileTest, SaysWhatIsWrongAndQuotesNoToken) {
  const struct {
    const char* text;
    const char* error;
  } cases[] = {
      {"", "must be a map"},
      {"[]", "must be a map"},
      {"tokens: 3", "must be a map"},
      {"tokens: []", "at least one"},
      {"tokens: [{name: a, role: user, token: hush}]\nmore: 1", "nothing but 'tokens'"},
      {"tokens: [hush]", "tokens[0]: is not a map"},
      {"tokens: [{role: user, token: hush}]", "tokens[0]: name: is not 1 to 64"},
      {"tokens: [{name: 'a b', role: user, token: hush}]", "tokens[0]: name: is not 1 to 64"},
      {"tokens: [{name: a, token: hush}]", "role: '' is not one of viewer, user, admin"},
      {"tokens: [{name: a, role: root, token: hush}]", "role: 'root' is not one of"},
      {"tokens: [{name: a, role: user}]", "needs either token or sha256"},
      {"tokens: [{name: a, role: user, token: hush, sha256: hush}]", "needs either"},
      {"tokens: [{name: a, role: user, sha256: hush}]", "sha256: is not 64 hex digits"},
      {"tokens: [{name: a, role: user, token: 'hush hush'}]", "token: is not 1 to 4096 printable"},
      {"tokens: [{name: a, role: user, token: [hush]}]", "token: is not a text"},
      {"tokens: [{name: a, role: user, token: hush, token: hush}]", "token: is there twice"},
      {"tokens: [{name: a, role: user, token: hush, x: 1}]", "unknown key 'x'"},
      {"tokens: [{name: a, role: user, token: hush}, {name: a, role: user, token: b}]",
       "tokens[1]: name: 'a' is there twice"},
      {"tokens: [{name: a, role: user, token: \"hush}", "is not YAML: line 1"},
      {"tokens: [&x hush, *y]", "is not YAML"},
  };
  for (const auto& bad : cases) {
    EXPECT_THAT(ErrorOf(bad.text), HasSubstr(bad.error)) << bad.text;
    EXPECT_THAT(ErrorOf(bad.text), Not(HasSubstr("hush"))) << bad.text;
  }
}

class AccessTest : public ::testing::Test {
 protected:
  static constexpr char kTokens[] =
      "tokens:\n"
      "  - {name: vera, role: viewer, token: viewer-token}\n"
      "  - {name: ulf, role: user, token: user-token}\n"
      "  - {name: ada, role: admin, token: admin-token}\n";

  void Write(const std::string& text) {
    std::ofstream(path_) << text;
    chmod(path_.c_str(), 0600);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<Access> Open() {
    absl::StatusOr<std::unique_ptr<Access>> access = Access::Create(path_, &logger_);
    EXPECT_TRUE(access.ok()) << access.status();
    return access.ok() ? *std::move(access) : nullptr;
  }

  const std::string path_ =
      absl::StrCat(::testing::TempDir(), "/",
                   ::testing::UnitTest::GetInstance()->current_test_info()->name(), ".yaml");
  std::ostringstream log_;
  Logger logger_{"info", "json", &log_};
};

TEST_F(AccessTest, WithoutTokensEveryoneIsAnAdmin) {
  const auto access = Access::Create("", &logger_);
  ASSERT_TRUE(access.ok());
  EXPECT_FALSE((*access)->needs_token());
  const auto principal = (*access)->Admit("", kUnload);
  ASSERT_TRUE(principal.ok());
  EXPECT_EQ(principal->name, "");
  (*access)->Reload();
  EXPECT_EQ(log_.str(), "");
}

TEST_F(AccessTest, RolesMayWhatThoseBelowThemMay) {
  Write(kTokens);
  const auto access = Open();
  const struct {
    const char* token;
    bool list, infer, unload;
  } cases[] = {{"Bearer viewer-token", true, false, false},
               {"bearer  user-token", true, true, false},
               {"BEARER admin-token", true, true, true}};
  for (const auto& role : cases) {
    EXPECT_EQ(access->Admit(role.token, kList).ok(), role.list) << role.token;
    EXPECT_EQ(access->Admit(role.token, kInfer).ok(), role.infer) << role.token;
    EXPECT_EQ(access->Admit(role.token, kUnload).ok(), role.unload) << role.token;
    EXPECT_EQ(access->Admit(role.token, "/a.new.Service/Method").ok(), role.unload) << role.token;
  }
  EXPECT_EQ(access->Authenticate("Bearer user-token")->name, "ulf");
  const absl::Status denied = access->Admit("Bearer user-token", kUnload).status();
  EXPECT_TRUE(absl::IsPermissionDenied(denied));
  EXPECT_EQ(denied.message(),
            "/distorch.v1.ModelService/Unload needs the role admin; ulf has the role user");
}

TEST_F(AccessTest, SaysWhetherATokenIsMissingMalformedOrUnknown) {
  Write(kTokens);
  const auto access = Open();
  const struct {
    std::string authorization;
    const char* error;
  } cases[] = {{"", "a token is needed"},
               {"Basic dTpw", "not of the form 'Bearer TOKEN'"},
               {"Bearer ", "not of the form"},
               {"admin-token", "not of the form"},
               {"Bearer admin-toke", "none that this server knows"},
               {"Bearer admin-token2", "none that this server knows"},
               {"Bearer " + std::string(100'000, 'x'), "none that this server knows"}};
  for (const auto& bad : cases) {
    const absl::Status status = access->Authenticate(bad.authorization).status();
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr(bad.error));
    EXPECT_THAT(status.message(), Not(HasSubstr("admin-token")));
  }
}

TEST_F(AccessTest, ANewFileCountsAtTheNextReload) {
  Write(kTokens);
  const auto access = Open();
  Write("tokens: [{name: new, role: user, token: fresh-token}]");
  EXPECT_TRUE(access->Authenticate("Bearer user-token").ok());
  access->Reload();
  EXPECT_TRUE(absl::IsUnauthenticated(access->Authenticate("Bearer user-token").status()));
  EXPECT_EQ(access->Authenticate("Bearer fresh-token")->name, "new");
  const std::string log = log_.str();
  access->Reload();
  EXPECT_EQ(log_.str(), log);  // nothing has changed
  EXPECT_THAT(log, Not(HasSubstr("-token")));
}

TEST_F(AccessTest, AWrongNewFileIsLoggedOnceAndChangesNothing) {
  Write(kTokens);
  const auto access = Open();
  Write("tokens: [{name: new, role: emperor, token: fresh-token}]");
  access->Reload();
  EXPECT_THAT(log_.str(), HasSubstr("tokens stay as they were"));
  EXPECT_THAT(log_.str(), HasSubstr("'emperor' is not one of viewer, user, admin"));
  std::string log = log_.str();
  access->Reload();
  EXPECT_EQ(log_.str(), log);
  std::filesystem::remove(path_);
  access->Reload();
  EXPECT_THAT(log_.str().substr(log.size()), HasSubstr("No such file"));
  log = log_.str();
  access->Reload();
  EXPECT_EQ(log_.str(), log);
  EXPECT_TRUE(access->Admit("Bearer admin-token", kUnload).ok());
  Write("tokens: [{name: new, role: user, token: fresh-token}]");
  access->Reload();
  EXPECT_TRUE(access->Authenticate("Bearer fresh-token").ok());
}

TEST_F(AccessTest, WarnsOfAFileThatEveryoneCanRead) {
  Write(kTokens);
  Open();
  EXPECT_THAT(log_.str(), Not(HasSubstr("everyone")));
  chmod(path_.c_str(), 0644);
  Open();
  EXPECT_THAT(log_.str(), HasSubstr("\"level\":\"warning\",\"msg\":\"everyone on this machine"));
}

TEST_F(AccessTest, WhatCannotBeReadIsNoAccess) {
  EXPECT_TRUE(absl::IsNotFound(Access::Create(path_, &logger_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Access::Create(::testing::TempDir(), &logger_).status()));
  Write("tokens: [");
  const absl::Status status = Access::Create(path_, &logger_).status();
  EXPECT_THAT(status.message(), HasSubstr(path_));
  Write(std::string(kMaxTokensFileBytes + 1, '#'));
  EXPECT_THAT(Access::Create(path_, &logger_).status().message(), HasSubstr("larger than 1048576"));
}

}  // namespace
}  // namespace distorch
