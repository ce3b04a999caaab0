#include "server/webhook/head.h"

#include <charconv>
#include <system_error>

#include "server/base/text.h"

namespace userintent::webhook {
namespace {

std::string_view PathOf(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!EqualsLower(target.substr(0, scheme.size()), scheme)) continue;
    const size_t path = target.find('/', scheme.size());
    return path == std::string_view::npos ? "/" : target.substr(path);
  }
  return target;
}

// What is wrong with where the body ends, if anything is.
std::optional<Answer> JudgeLength(const Head& head, size_t* length) {
  if (head.transfer_encoding.times > 0) {
    // Both together is how requests are smuggled past a proxy.
    return head.content_length.times > 0 ? Answer::kBadRequest : Answer::kNoLength;
  }
  if (head.content_length.times == 0) return Answer::kNoLength;
  const std::string_view text = head.content_length.value;
  if (head.content_length.times > 1 || text.empty() || !AllDigits(text)) return Answer::kBadRequest;
  // What does not fit the number is too large as well.
  const std::errc error = std::from_chars(text.data(), text.data() + text.size(), *length).ec;
  if (error != std::errc() || *length > kLongestBody) return Answer::kTooLarge;
  return std::nullopt;
}

}  // namespace

void Head::Take(std::string_view name, std::string_view text) {
  Field* const field = EqualsLower(name, "content-length")       ? &content_length
                       : EqualsLower(name, "transfer-encoding")  ? &transfer_encoding
                       : EqualsLower(name, "astra-verification") ? &signature
                       : EqualsLower(name, "host")               ? &host
                                                                 : nullptr;
  if (field == nullptr) return;
  ++field->times;
  // Blanks round a value are not part of it (RFC 9110 section 5.5). Not so for a length: whoever reads the body after
  // it must take it alike.
  field->value = field == &signature ? TrimBlanks(text) : text;
}

HeadVerdict JudgeHead(const Head& head, std::string_view path) {
  HeadVerdict verdict;
  const std::optional<Answer> wrong = JudgeLength(head, &verdict.length);
  // Requests of other methods may come without a body, and then there is none to read.
  const bool no_body = head.content_length.times == 0 && head.transfer_encoding.times == 0 && head.method != "POST";
  const bool two_hosts = head.host.times > 1;  // RFC 9112 section 3.2
  verdict.read_body = (!wrong || no_body) && !two_hosts && head.version == "HTTP/1.1";
  if (head.version != "HTTP/1.1") {
    verdict.refusal = Answer::kWrongVersion;
  } else if (PathOf(head.path) != path) {
    verdict.refusal = Answer::kNotFound;
  } else if (head.method != "POST") {
    verdict.refusal = Answer::kWrongMethod;
  } else if (two_hosts) {
    verdict.refusal = Answer::kBadRequest;
  } else {
    verdict.refusal = wrong;
  }
  return verdict;
}

}  // namespace userintent::webhook
