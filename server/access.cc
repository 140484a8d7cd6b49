#include "server/access.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
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
    ASSIGN_OR_RETURN(const std::string text, access->Read());
    RETURN_IF_ERROR(access->Use(text));
  }
  return access;
}

absl::StatusOr<std::string> Access::Read() const {
  const auto failed = [this] {
    return absl::ErrnoToStatus(errno, absl::StrCat("auth_tokens_file: ", tokens_file_));
  };
  const int fd = open(tokens_file_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed();
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return failed();
  if (!S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(
        absl::StrCat("auth_tokens_file: ", tokens_file_, " is not a file"));
  std::string text(kMaxTokensFileBytes + 1, '\0');  // one more than ParseTokens takes
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd, text.data() + size, text.size() - size);
    if (got < 0) return failed();
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

absl::Status Access::Use(const std::string& text) {
  absl::StatusOr<Tokens> tokens = ParseTokens(text);
  if (!tokens.ok()) {
    return absl::Status(tokens.status().code(), absl::StrCat("auth_tokens_file: ", tokens_file_,
                                                             ": ", tokens.status().message()));
  }
  struct stat info;
  if (stat(tokens_file_.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0)
    logger_->Warning("everyone on this machine can read the tokens", {{"path", tokens_file_}});
  logger_->Info("tokens read",
                {{"path", tokens_file_}, {"tokens", static_cast<int64_t>(tokens->size())}});
  absl::MutexLock lock(&mutex_);
  tokens_ = std::make_shared<const Tokens>(*std::move(tokens));
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
  const absl::StatusOr<std::string> text = Read();
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
