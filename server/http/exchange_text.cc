#include "server/http/exchange_text.h"

namespace userintent::http {

// Without an early end: this runs for every byte of every request's head, and finds nothing.
bool HasControl(std::string_view text) {
  bool found = false;
  for (const char c : text) found |= c == '\r' || c == '\n' || c == '\0';
  return found;
}

std::string_view DetailOf(NotSentCause cause) {
  switch (cause) {
    case NotSentCause::kNone:
      break;
    case NotSentCause::kResolve:
      return "host name does not resolve";
    case NotSentCause::kConnect:
      return "connection refused, unreachable or lost before the request";
    case NotSentCause::kTimeout:
      return "no connection within the connect timeout";
    case NotSentCause::kTls:
      return "TLS handshake failed";
    case NotSentCause::kUntrusted:
      return "certificate or host name not accepted";
    case NotSentCause::kForbiddenAddress:
      return "host resolves to an address that is not allowed";
    case NotSentCause::kCancelled:
      return "cancelled before anything was sent";
    case NotSentCause::kLeaseOver:
      return "the lease was over before anything was sent";
    case NotSentCause::kInternal:
      return "HTTP client failed before anything was sent";
  }
  return "";
}

}  // namespace userintent::http
