#include "server/access.h"

#include <openssl/crypto.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "server/methods.h"

namespace distorch {
namespace {

// The token of "Bearer TOKEN", with the scheme in any case (RFC 9110); empty when it is another.
std::string_view BearerToken(std::string_view authorization) {
  constexpr std::string_view kScheme = "Bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return "";
  return absl::StripLeadingAsciiWhitespace(authorization.substr(kScheme.size()));
}

}  // namespace

Access::Access(std::string tokens_file, Logger* logger)
    : tokens_file_(std::move(tokens_file)), logger_(logger) {}

absl::StatusOr<std::unique_ptr<Access>> Access::Create(std::string tokens_file, Logger* logger) {
  std::unique_ptr<Access> access(new Access(std::move(tokens_file), logger));
  if (access->needs_token()) {
    ASSIGN_OR_RETURN(const std::string text, ReadTokensText(access->tokens_file_));
    RETURN_IF_ERROR(access->Use(text));
  }
  return access;
}

absl::Status Access::Use(const std::string& text) {
  ASSIGN_OR_RETURN(Tokens tokens, ParseTokens(text, tokens_file_));
  if (EveryoneCanRead(tokens_file_))
    logger_->Warning("everyone on this machine can read the tokens", {{"path", tokens_file_}});
  logger_->Info("tokens read",
                {{"path", tokens_file_}, {"tokens", static_cast<int64_t>(tokens.size())}});
  absl::MutexLock lock(&mutex_);
  tokens_ = std::make_shared<const Tokens>(std::move(tokens));
  seen_ = DigestOf(text);
  return absl::OkStatus();
}

absl::StatusOr<Principal> Access::Authenticate(std::string_view authorization) const {
  if (!needs_token()) return Principal{"", Role::kAdmin};
  if (authorization.empty()) {
    return absl::UnauthenticatedError(
        "a token is needed: send it as 'authorization: Bearer TOKEN' (distorchctl: --token_file)");
  }
  const std::string_view token = BearerToken(authorization);
  if (token.empty())
    return absl::UnauthenticatedError("authorization: is not of the form 'Bearer TOKEN'");
  std::shared_ptr<const Tokens> tokens;
  {
    absl::MutexLock lock(&mutex_);
    tokens = tokens_;
  }
  // Looks at every entry whatever it finds, so that the time taken tells nothing.
  const TokenDigest digest = DigestOf(token);
  const Token* found = nullptr;
  for (const Token& entry : *tokens) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr)
    return absl::UnauthenticatedError("the token is none that this server knows");
  return Principal{found->name, found->role};
}

absl::Status Access::Authorize(const Principal& principal, std::string_view method) {
  const Method* known = FindMethod(method);
  const Role needed = known == nullptr ? Role::kAdmin : known->role;
  if (principal.role >= needed) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(method, " needs the role ", RoleName(needed),
                                                  "; ", principal.name, " has the role ",
                                                  RoleName(principal.role)));
}

absl::StatusOr<Principal> Access::Admit(std::string_view authorization,
                                        std::string_view method) const {
  ASSIGN_OR_RETURN(Principal principal, Authenticate(authorization));
  RETURN_IF_ERROR(Authorize(principal, method));
  return principal;
}

void Access::Reload() {
  if (!needs_token()) return;
  const absl::StatusOr<std::string> text = ReadTokensText(tokens_file_);
  const TokenDigest digest = DigestOf(text.ok() ? *text : text.status().ToString());
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(seen_, digest) == digest) return;
  }
  const absl::Status status = text.ok() ? Use(*text) : text.status();
  if (!status.ok()) {
    logger_->Error("the tokens stay as they were", {{"error", std::string(status.message())}});
  }
}

}  // namespace distorch
