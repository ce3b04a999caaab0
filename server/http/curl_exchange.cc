#include "server/http/curl_exchange.h"

#include "server/base/text.h"
#include "server/base/wipe.h"
#include "server/http/exchange_text.h"

namespace userintent::http {
namespace {

// A number of up to 18 digits.
std::optional<uint64_t> ReadLength(std::string_view value) {
  if (value.empty() || value.size() > 18 || !AllDigits(value)) return std::nullopt;
  uint64_t length = 0;
  for (const char digit : value) length = length * 10 + static_cast<uint64_t>(digit - '0');
  return length;
}

}  // namespace

void BodyLength::TakeField(std::string_view name, std::string_view value) {
  if (name.size() == 17 && EqualsLower(name, "transfer-encoding")) transfer_encoding = true;
  if (name.size() == 14 && EqualsLower(name, "content-length")) {
    ++announced;
    length = ReadLength(value);
  }
}

void CurlExchange::PrepareLines(const std::string& origin) {
  url = origin + request.path;
  header_lines.reserve(request.headers.size() + 1);
  for (auto& [name, value] : request.headers) {
    std::string& line = header_lines.emplace_back();
    line.reserve(name.size() + 2 + value.size());  // one allocation, so that no copy of a secret is left behind
    line.append(name).append(": ").append(value);
    Wipe(value);
  }
  request.headers.clear();
  header_lines.emplace_back("Expect:");  // never wait for 100-continue
  header_nodes.resize(header_lines.size());
  for (size_t i = 0; i < header_lines.size(); ++i) {
    header_nodes[i].data = header_lines[i].data();
    header_nodes[i].next = i + 1 < header_nodes.size() ? &header_nodes[i + 1] : nullptr;
  }
}

void CurlExchange::BlankLines() {
  for (size_t i = 0; i < header_lines.size(); ++i) {
    Wipe(header_lines[i]);
    header_nodes[i].data = header_lines[i].data();
  }
}

void CurlExchange::WipeLines() {
  for (std::string& line : header_lines) Wipe(line);
  header_lines.clear();
  header_nodes.clear();
}

NotSentCause CurlExchange::CauseOf(CURLcode code) const {
  if (stop == Stop::kInternal) return NotSentCause::kInternal;
  if (stop == Stop::kNoHttp1Alpn) return NotSentCause::kTls;
  if (stop == Stop::kLeaseOver) return NotSentCause::kLeaseOver;
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return NotSentCause::kResolve;
    case CURLE_OPERATION_TIMEDOUT:
      return NotSentCause::kTimeout;
    case CURLE_COULDNT_CONNECT:
      return forbidden_addresses > 0 && allowed_addresses == 0 ? NotSentCause::kForbiddenAddress
                                                               : NotSentCause::kConnect;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CACERT_BADFILE:
      return NotSentCause::kUntrusted;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_SHUTDOWN_FAILED:
      return NotSentCause::kTls;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:  // bytes that are not HTTP, before the body was sent
      return NotSentCause::kConnect;
    default:
      return stop == Stop::kNone ? NotSentCause::kInternal : NotSentCause::kConnect;
  }
}

std::string_view CurlExchange::DetailFor(CURLcode code, NotSentCause cause) const {
  if (sending != Sending::kMaybeSent) {
    return stop == Stop::kNoHttp1Alpn ? "peer does not offer HTTP/1.1" : DetailOf(cause);
  }
  if (stop == Stop::kInternal) return "HTTP client failed after the request was sent";
  if (stop == Stop::kSecondSending) return "connection lost after the request; a second sending was refused";
  if (cut == Cut::kHead) return "answer head over the limit";
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return kNoAnswer;
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return "HTTP/2 stream or connection ended without an answer";
    case CURLE_OK:
      return "no final answer";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
      return "answer is not HTTP";
    default:
      return "connection lost after the request";
  }
}

}  // namespace userintent::http
