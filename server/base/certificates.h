// Reads files of certificates (PEM), which are no secrets but say whom to trust. Stateless; any thread. Blocks for as
// long as reading a small local file takes.
#pragma once

#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace userintent {

struct Certificates {
  std::string pem;                                                  // the file as it is, up to 1 MiB
  std::vector<std::unique_ptr<X509, decltype(&X509_free)>> parsed;  // at least one, in the order of the file
};

// Every certificate in the file; text between them is passed over. Refused: what is no regular file, what others may
// write, what holds no certificate or a damaged one. Symbolic links are followed. `what` names the setting that gave
// the path; error texts hold it and the reason, never content or path.
absl::StatusOr<Certificates> ReadCertificateFile(const std::string& path, std::string_view what);

}  // namespace userintent
