// SHA-256 (FIPS 180-4), by OpenSSL.
#ifndef LIB_BASE_SHA256_H_
#define LIB_BASE_SHA256_H_

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace distorch {

// One hash over everything that Update was given, in order. Not thread-safe.
class Sha256 {
 public:
  Sha256();

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }

  // 64 lower-case hex digits; call it once, last. INTERNAL when OpenSSL could not hash.
  absl::StatusOr<std::string> HexDigest();

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };

  std::unique_ptr<EVP_MD_CTX, Free> context_;
  bool ok_;
};

}  // namespace distorch

#endif  // LIB_BASE_SHA256_H_
