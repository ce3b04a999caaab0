#include "server/astra/error_type.h"

#include "server/http/exchange_text.h"

namespace userintent::astra {
namespace {

std::string_view OfCause(http::NotSentCause cause) {
  switch (cause) {
    case http::NotSentCause::kResolve:
      return "name_not_resolved";
    case http::NotSentCause::kConnect:
      return "connect";
    case http::NotSentCause::kTimeout:
      return "connect_timeout";
    case http::NotSentCause::kTls:
      return "tls";
    case http::NotSentCause::kUntrusted:
      return "certificate";
    case http::NotSentCause::kForbiddenAddress:
      return "address_not_allowed";
    case http::NotSentCause::kCancelled:
      return "cancelled";
    case http::NotSentCause::kLeaseOver:
      return "lease_over";
    case http::NotSentCause::kNone:
    case http::NotSentCause::kInternal:
      return "internal";
  }
  return "internal";
}

}  // namespace

std::string_view ErrorTypeOf(const http::Outcome& exchange) {
  switch (exchange.fate) {
    case http::Fate::kNotSent:
      return OfCause(exchange.cause);
    case http::Fate::kRefused:
      return "refused_stream";
    case http::Fate::kAnswered:
      return exchange.body_complete ? "" : "answer_cut";
    case http::Fate::kMaybeSent:
      return exchange.detail == http::kNoAnswer ? "timeout" : "connection_lost";
  }
  return "internal";
}

}  // namespace userintent::astra
