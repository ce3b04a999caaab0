// What the readers of this room's PEM files have in common. Any thread.
#pragma once

#include <openssl/err.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace userintent::tls {

// An error text that begins with the flag. What OpenSSL noted of the failure is dropped: it would be taken for that of
// a session which this thread serves later.
inline absl::Status Refused(std::string_view flag, std::string_view reason) {
  ERR_clear_error();
  return absl::InvalidArgumentError(std::string(flag).append(": ").append(reason));
}

// For OpenSSL's readers: a key with a passphrase must fail, not ask the terminal for it.
inline int NoPassphrase(char*, int, int, void*) { return 0; }

}  // namespace userintent::tls
