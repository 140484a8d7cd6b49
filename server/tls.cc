#include "server/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr std::streamsize kMaxFile = 1 << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* cert) const { X509_free(cert); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Bio = std::unique_ptr<BIO, Free>;
using Cert = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;

// A file of TLS, and which flag it comes from.
struct File {
  std::string_view flag;
  const std::string& path;

  template <typename... Parts>
  absl::Status Bad(const Parts&... what) const {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " ", what...));
  }
};

absl::StatusOr<Bio> Open(const File& file) {
  errno = 0;
  std::ifstream in(file.path, std::ios::binary);
  std::string text(kMaxFile, '\0');
  if (in) in.read(text.data(), kMaxFile);
  if (!in && !in.eof())
    return absl::ErrnoToStatus(errno, absl::StrCat(file.flag, ": cannot read ", file.path));
  Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr) return absl::InternalError("OpenSSL has no memory");
  BIO_write(bio.get(), text.data(), static_cast<int>(in.gcount()));
  return bio;
}

// The first certificate of the file.
absl::StatusOr<Cert> ReadCert(const File& file) {
  ASSIGN_OR_RETURN(const Bio bio, Open(file));
  Cert cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (cert == nullptr) return file.Bad("has no certificate in PEM");
  return cert;
}

absl::StatusOr<Key> ReadKey(const File& file) {
  ASSIGN_OR_RETURN(const Bio bio, Open(file));
  // Called for an encrypted key; without it OpenSSL would ask the terminal.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (key == nullptr) return file.Bad("has no private key in PEM without a password");
  return key;
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm civil = {};
  ASN1_TIME_to_tm(time, &civil);
  return absl::FromTM(civil, absl::UTCTimeZone());
}

std::string Day(const ASN1_TIME* time) {
  return absl::FormatTime("%Y-%m-%d", ToTime(time), absl::UTCTimeZone());
}

std::string Subject(const Cert& cert) {
  const Bio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(cert.get()), 0,
                     XN_FLAG_ONELINE & ~ASN1_STRFLGS_ESC_MSB);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<std::size_t>(size));
}

absl::Status CheckDates(const File& file, const Cert& cert) {
  const ASN1_TIME* from = X509_get0_notBefore(cert.get());
  const ASN1_TIME* until = X509_get0_notAfter(cert.get());
  if (X509_cmp_current_time(from) > 0) return file.Bad("is valid only from ", Day(from), " on");
  if (X509_cmp_current_time(until) < 0) return file.Bad("has expired on ", Day(until));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> CheckTls(const TlsFiles& files) {
  if (files.cert.empty() || files.key.empty()) {
    return absl::InvalidArgumentError(
        "TLS needs both tls_cert and tls_key (tls_client_ca is for clients' certificates)");
  }
  const File cert_file{"tls_cert", files.cert}, key_file{"tls_key", files.key},
      ca_file{"tls_client_ca", files.client_ca};
  ASSIGN_OR_RETURN(const Cert cert, ReadCert(cert_file));
  RETURN_IF_ERROR(CheckDates(cert_file, cert));
  ASSIGN_OR_RETURN(const Key key, ReadKey(key_file));
  const bool match = X509_check_private_key(cert.get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) return key_file.Bad("is not the key of the certificate in ", files.cert);
  std::string text = absl::StrCat(Subject(cert), ", until ", Day(X509_get0_notAfter(cert.get())));
  if (!files.client_ca.empty()) {
    ASSIGN_OR_RETURN(const Cert ca, ReadCert(ca_file));
    RETURN_IF_ERROR(CheckDates(ca_file, ca));
    absl::StrAppend(&text, "; clients need certificates of ", Subject(ca));
  }
  return text;
}

}  // namespace distorch
