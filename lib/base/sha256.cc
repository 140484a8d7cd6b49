#include "lib/base/sha256.h"

#include <array>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"

namespace distorch {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
}

void Sha256::Update(std::span<const std::byte> bytes) {
  ok_ = ok_ && EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1;
}

absl::StatusOr<std::string> Sha256::HexDigest() {
  std::array<unsigned char, 32> digest;
  ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1;
  if (!ok_) return absl::InternalError("OpenSSL could not compute a SHA-256");
  return absl::BytesToHexString(
      std::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace distorch
