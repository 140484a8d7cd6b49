// The file of --auth_tokens_file: who may use the daemon, and as what.
//
//   tokens:                     # YAML, or the same as JSON
//     - name: alice             # for logs and quotas
//       role: admin             # or user, or viewer
//       sha256: 9f86d081884c…   # of the token, in hex; or
//       token: …                # the token itself
#ifndef SERVER_TOKENS_FILE_H_
#define SERVER_TOKENS_FILE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace distorch {

// Each role may do what those before it may.
enum class Role { kViewer, kUser, kAdmin };
// "viewer", "user", "admin".
std::string_view RoleName(Role role);

using TokenDigest = std::array<uint8_t, 32>;  // SHA-256
TokenDigest DigestOf(std::string_view token);

struct Token {
  std::string name;
  Role role = Role::kViewer;
  TokenDigest digest;
};

inline constexpr std::size_t kMaxTokensFileBytes = 1 << 20;

// `path`'s bytes. Errors name it: NOT_FOUND, PERMISSION_DENIED, and INVALID_ARGUMENT for what is no
// file or too large.
absl::StatusOr<std::string> ReadTokensText(const std::string& path);
// The tokens of such a text; `path` is for the errors. INVALID_ARGUMENT says which entry is wrong
// and what is allowed, and never quotes a token. Names and tokens are unique; there is at least
// one.
absl::StatusOr<std::vector<Token>> ParseTokens(std::string_view text, std::string_view path);
// Both.
absl::StatusOr<std::vector<Token>> ReadTokens(const std::string& path);

// Whether others than the file's owner and group can read it.
bool EveryoneCanRead(const std::string& path);

}  // namespace distorch

#endif  // SERVER_TOKENS_FILE_H_
