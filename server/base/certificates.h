// Reads files of certificates (PEM), which are no secrets but say whom to trust, and says when certificates end.
// Stateless; any thread. Reading blocks for as long as a small local file takes.
#pragma once

#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace userintent {

using SystemTime = std::chrono::system_clock::time_point;

struct Certificates {
  std::string pem;                                                  // the file as it is, up to 1 MiB
  std::vector<std::unique_ptr<X509, decltype(&X509_free)>> parsed;  // at least one, in the order of the file
};

// Every certificate in the file; text between them is passed over. Refuses a file that is not regular, that others may
// write, that is larger than 1 MiB, and that holds no certificate or a damaged one. Symbolic links are followed. `what`
// names the setting that gave the path, and begins the text of an error, which never holds content or path.
absl::StatusOr<Certificates> ReadCertificateFile(const std::string& path, std::string_view what);

// Of a certificate (notAfter), or of a list of revoked ones (nextUpdate). What lies after 2100 counts as that year:
// RFC 5280 says "no end" by the year 9999, which the clock cannot hold. What cannot be read has ended long ago.
SystemTime TimeOf(const ASN1_TIME* time);

// When the first of them ends.
SystemTime FirstEnd(const Certificates& certificates);

}  // namespace userintent
