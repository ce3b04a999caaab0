#include "server/base/certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/status/status.h"
#include "server/base/public_file.h"
#include "server/base/refused.h"

namespace userintent {
namespace {

// A key with a passphrase must fail, not ask the terminal for it.
int NoPassphrase(char*, int, int, void*) { return 0; }

}  // namespace

absl::StatusOr<Certificates> ReadCertificateFile(const std::string& path, std::string_view what) {
  absl::StatusOr<std::string> bytes = ReadPublicFile(path, what);
  if (!bytes.ok()) return bytes.status();
  Certificates certificates;
  certificates.pem = *std::move(bytes);
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(certificates.pem.data(), static_cast<int>(certificates.pem.size())), BIO_free);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.parsed.emplace_back(certificate, X509_free);
  }
  // The end of the file is an error of its own kind; any other one means that a certificate is damaged.
  const unsigned long error = ERR_peek_last_error();  // NOLINT: OpenSSL's type
  ERR_clear_error();
  if (certificates.parsed.empty()) return Refused(what, "holds no certificate in PEM form");
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return Refused(what, "holds a damaged certificate");
  }
  return certificates;
}

SystemTime TimeOf(const ASN1_TIME* time) {
  constexpr time_t kFar = 4102444800;  // 2100
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return SystemTime();
  return std::chrono::system_clock::from_time_t(std::min(timegm(&parts), kFar));
}

SystemTime FirstEnd(const Certificates& certificates) {
  SystemTime first = SystemTime::max();
  for (const auto& certificate : certificates.parsed) {
    first = std::min(first, TimeOf(X509_get0_notAfter(certificate.get())));
  }
  return first;
}

}  // namespace userintent
