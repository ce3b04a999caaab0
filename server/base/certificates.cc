#include "server/base/certificates.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "server/base/errno_text.h"

namespace userintent {
namespace {

absl::Status Refused(std::string_view what, std::string_view reason) {
  return absl::InvalidArgumentError(std::string(what).append(": ").append(reason));
}

// A file that is no secret, up to 1 MiB.
absl::StatusOr<std::string> ReadPublicFile(const std::string& path, std::string_view what) {
  constexpr size_t kMax = size_t{1} << 20;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return Refused(what, "cannot open the file: " + ErrnoText());
  struct stat info {};
  std::string bytes;
  ssize_t got = -1;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    char buffer[16384];
    while ((got = read(fd, buffer, sizeof buffer)) > 0 && bytes.size() <= kMax) {
      bytes.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  if (got < 0) return Refused(what, "cannot read the file, or it is not a regular file");
  if ((info.st_mode & S_IWOTH) != 0) {
    return Refused(what, "others may write the file; take that right away (chmod o-w)");
  }
  if (bytes.size() > kMax) return Refused(what, "the file is larger than 1 MiB");
  return bytes;
}

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

}  // namespace userintent
