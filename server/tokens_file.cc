#include "server/tokens_file.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch {
namespace {

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kMaxToken = 4096;

template <typename... Parts>
absl::Status Bad(const Parts&... what) {
  return absl::InvalidArgumentError(absl::StrCat(what...));
}

bool IsGraphic(std::string_view text) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
}

absl::StatusOr<Role> ParseRole(const std::string& text) {
  for (Role role : {Role::kViewer, Role::kUser, Role::kAdmin}) {
    if (text == RoleName(role)) return role;
  }
  return Bad("role: ", Quoted(text), " is not one of viewer, user, admin");
}

absl::StatusOr<TokenDigest> ParseDigest(const std::string& hex) {
  TokenDigest digest;
  if (hex.size() != 2 * digest.size() ||
      !std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit)) {
    return Bad("sha256: is not 64 hex digits");
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

absl::StatusOr<TokenDigest> ParseToken(const std::string& token) {
  if (token.empty() || token.size() > kMaxToken || !IsGraphic(token)) {
    return Bad("token: is not 1 to ", kMaxToken, " printable ASCII characters without spaces");
  }
  return DigestOf(token);
}

absl::StatusOr<Token> ParseEntry(const YAML::Node& node) {
  if (!node.IsMap()) return Bad("is not a map with name, role and token or sha256");
  std::string name, role, token, sha256;
  const std::pair<std::string_view, std::string*> fields[] = {
      {"name", &name}, {"role", &role}, {"token", &token}, {"sha256", &sha256}};
  for (const auto& field : node) {
    const std::string key = field.first.as<std::string>();
    const auto* known = std::find_if(std::begin(fields), std::end(fields),
                                     [&](const auto& known) { return known.first == key; });
    if (known == std::end(fields)) {
      return Bad("has the unknown key ", Quoted(key), "; known are name, role, token, sha256");
    }
    if (!field.second.IsScalar()) return Bad(key, ": is not a text");
    if (!known->second->empty()) return Bad(key, ": is there twice");
    *known->second = field.second.Scalar();
  }
  if (name.empty() || name.size() > kMaxName || !IsGraphic(name)) {
    return Bad("name: is not 1 to ", kMaxName, " printable ASCII characters without spaces");
  }
  if (token.empty() == sha256.empty()) return Bad("needs either token or sha256");
  Token result;
  result.name = std::move(name);
  ASSIGN_OR_RETURN(result.role, ParseRole(role));
  ASSIGN_OR_RETURN(result.digest, token.empty() ? ParseDigest(sha256) : ParseToken(token));
  return result;
}

absl::StatusOr<std::vector<Token>> ParseRoot(const YAML::Node& root) {
  if (!root.IsMap() || root.size() != 1 || !root["tokens"].IsDefined() ||
      !root["tokens"].IsSequence() || root["tokens"].size() == 0) {
    return Bad("must be a map with nothing but 'tokens', a sequence of at least one entry");
  }
  std::vector<Token> tokens;
  std::set<std::string> names;
  std::set<TokenDigest> digests;
  for (const YAML::Node& node : root["tokens"]) {
    const std::string where = absl::StrCat("tokens[", tokens.size(), "]");
    absl::StatusOr<Token> token = ParseEntry(node);
    if (!token.ok()) return Bad(where, ": ", token.status().message());
    if (!names.insert(token->name).second)
      return Bad(where, ": name: ", Quoted(token->name), " is there twice");
    if (!digests.insert(token->digest).second)
      return Bad(where, ": has the same token as an entry before it");
    tokens.push_back(*std::move(token));
  }
  return tokens;
}

}  // namespace

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kUser:
      return "user";
    case Role::kAdmin:
      break;
  }
  return "admin";
}

TokenDigest DigestOf(std::string_view token) {
  TokenDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

absl::StatusOr<std::string> ReadTokensText(const std::string& path) {
  const auto failed = [&path] {
    return absl::ErrnoToStatus(errno, absl::StrCat("auth_tokens_file: ", path));
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed();
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return failed();
  if (!S_ISREG(info.st_mode)) return Bad("auth_tokens_file: ", path, " is not a file");
  // One more than there should be, so that too much is noticed.
  std::string text(std::min(static_cast<std::size_t>(info.st_size), kMaxTokensFileBytes) + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd, text.data() + size, text.size() - size);
    if (got < 0) return failed();
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > kMaxTokensFileBytes) {
    return Bad("auth_tokens_file: ", path, " is larger than ", kMaxTokensFileBytes, " bytes");
  }
  text.resize(size);
  return text;
}

absl::StatusOr<std::vector<Token>> ParseTokens(std::string_view text, std::string_view path) {
  absl::Status wrong;
  try {
    absl::StatusOr<std::vector<Token>> tokens = ParseRoot(YAML::Load(std::string(text)));
    if (tokens.ok()) return tokens;
    wrong = tokens.status();
  } catch (const YAML::Exception& error) {
    // Not with what() in it: that may quote the text.
    wrong = Bad("is not YAML: line ", error.mark.line + 1, ", column ", error.mark.column + 1);
  }
  return Bad("auth_tokens_file: ", path, ": ", wrong.message());
}

absl::StatusOr<std::vector<Token>> ReadTokens(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadTokensText(path));
  return ParseTokens(text, path);
}

bool EveryoneCanRead(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0;
}

}  // namespace distorch
