#include "server/astra/classify.h"

#include <utility>

#include "server/astra/error_type.h"
#include "server/astra/json.h"
#include "server/astra/retry_after.h"
#include "server/base/text.h"
#include "server/base/uuid.h"

// In this file: creations by status line, and by what was proved not sent; reads by status line; what is taken from an
// answer; Classify and ClassifyRead.

namespace userintent::astra {
namespace {

constexpr size_t kMaxRequestId = 128;

bool IsSuccess(int status) { return status >= 200 && status <= 299; }

// An identifier for Astra's support. What does not look like one is dropped, not cut: half an id is of no use.
bool UsableRequestId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestId && AllPrintable(text);
}

// By the status line alone, in the order of the contract's table of errors. 2xx does not come here.
Verdict OfStatus(int status, bool has_retry_after) {
  switch (status) {
    // A rate limiter works in front of the service: refused unprocessed, with or without Retry-After.
    case 429:
      return Verdict::kRateLimited;

    // With Retry-After it is a server's own "not now". Without, it is also what a proxy makes up when the service broke
    // off in the middle of a request.
    case 503:
      return has_retry_after ? Verdict::kUnavailable : Verdict::kUnknown;

    case 400:
    case 422:
      return Verdict::kRejected;

    case 401:
    case 403:
      return Verdict::kCredentialsRejected;

    // The wrong place or the wrong way, for this and every other request: the gateway's settings, not the caller.
    case 404:
    case 405:
    case 406:
    case 410:
    case 418:
      return Verdict::kMisconfigured;

    // "See Other" is how a server answers a POST that it did process.
    case 303:
      return Verdict::kUnknown;

    // A server that gave up waiting for the request may have passed it on; a conflict may be with the very intent that
    // this request made.
    case 408:
    case 409:
      return Verdict::kUnknown;

    default:
      // Redirects are never followed, so nothing behind them has been asked.
      if (status >= 300 && status <= 399) return Verdict::kMisconfigured;
      // 5xx above all. Also 4xx that look harmless (402, 407, 411-417, 423-...): Astra documents none of them, so
      // it is not known which part of it answers so and when.
      return Verdict::kUnknown;
  }
}

// Fixed words for logs.
std::string_view Detail(Verdict verdict) {
  switch (verdict) {
    case Verdict::kCreated:
      return "created";
    case Verdict::kLimitReached:
      return "answer matches --astra_limit_error";
    case Verdict::kRejected:
      return "request rejected";
    case Verdict::kCredentialsRejected:
      return "credentials rejected";
    case Verdict::kMisconfigured:
      return "wrong place or way";
    case Verdict::kRateLimited:
      return "rate limited";
    case Verdict::kUnavailable:
      return "unavailable with Retry-After";
    case Verdict::kRefused:
      return "refused unprocessed";
    case Verdict::kNotSent:
      return "not sent";
    case Verdict::kUnknown:
      return "status says nothing certain";
  }
  return "";
}

// Of a GET, by the status line alone, in the order of the table of reads. 2xx does not come here.
ReadVerdict OfReadStatus(int status) {
  switch (status) {
    case 404:
      return ReadVerdict::kNotFound;
    case 408:
      return ReadVerdict::kUnavailable;
    case 429:
      return ReadVerdict::kRateLimited;
    case 401:
    case 403:
      return ReadVerdict::kCredentialsRejected;
    default:
      return status >= 500 ? ReadVerdict::kUnavailable : ReadVerdict::kMisconfigured;
  }
}

// Fixed words for logs.
std::string_view Detail(ReadVerdict verdict) {
  switch (verdict) {
    case ReadVerdict::kRead:
      return "read";
    case ReadVerdict::kNotFound:
      return "not found";
    case ReadVerdict::kNotSent:
      return "not sent";
    case ReadVerdict::kUnavailable:
      return "unavailable";
    case ReadVerdict::kRateLimited:
      return "rate limited";
    case ReadVerdict::kCredentialsRejected:
      return "credentials rejected";
    case ReadVerdict::kMisconfigured:
      return "wrong place or way";
  }
  return "";
}

constexpr std::string_view kNotAstras = "refused without an error of Astra's: perhaps by an edge in front of it";

// UNSPECIFIED for a word that is none of Astra's documented ones.
v1::VerificationType TypeOf(std::string_view kyc_type) {
  for (const v1::VerificationType type :
       {v1::VERIFICATION_TYPE_VERIFIED, v1::VERIFICATION_TYPE_UNVERIFIED, v1::VERIFICATION_TYPE_RECEIVE_ONLY}) {
    if (kyc_type == KycType(type)) return type;
  }
  return v1::VERIFICATION_TYPE_UNSPECIFIED;
}

// Of answers that may carry one. A date is one of the answerer's clock, which says itself how late it is there.
std::optional<absl::Duration> RetryAfterOf(const http::Outcome& exchange, absl::Time now) {
  if (exchange.status != 429 && exchange.status != 503) return std::nullopt;
  return ParseRetryAfter(exchange.retry_after, ParseHttpDate(exchange.date).value_or(now));
}

// What every answer's head tells, to a creation and to a read.
template <typename Out>
void TakeHead(const http::Outcome& exchange, Out& out) {
  out.http_status = exchange.status;
  if (UsableRequestId(exchange.request_id)) out.astra_request_id = exchange.request_id;
}

// What an answer that is no 2xx tells beside its verdict.
template <typename Out>
void TakeRefusal(const http::Outcome& exchange, std::optional<absl::Duration> retry_after, Out& out) {
  out.detail = Detail(out.verdict);
  out.retry_after = retry_after;
  if (out.verdict == decltype(out.verdict)::kCredentialsRejected && !IsAstraError(exchange.body)) {
    out.not_astras = true;
    out.detail = kNotAstras;
  }
}

// The same settings would end the next try in the same way.
bool RepeatPointless(http::NotSentCause cause) {
  switch (cause) {
    case http::NotSentCause::kUntrusted:
    case http::NotSentCause::kForbiddenAddress:
    case http::NotSentCause::kLeaseOver:
      return true;
    case http::NotSentCause::kNone:
    case http::NotSentCause::kResolve:
    case http::NotSentCause::kConnect:
    case http::NotSentCause::kTimeout:
    case http::NotSentCause::kTls:
    case http::NotSentCause::kCancelled:
    case http::NotSentCause::kInternal:
      return false;
  }
  return false;
}

void ClassifyReadAnswer(const http::Outcome& exchange, std::string_view user_intent_id, absl::Time now,
                        ReadOutcome& out) {
  TakeHead(exchange, out);
  if (IsSuccess(exchange.status)) {
    // One that is too long would be so again.
    if (!exchange.body_complete && exchange.body.size() < kMaxBody) {
      out.detail = exchange.detail.empty() ? "2xx with a body cut short" : exchange.detail;
      return;
    }
    std::optional<Reading> reading;
    if (exchange.body_complete) reading = ParseReading(exchange.body, user_intent_id);
    if (!reading) {
      out.verdict = ReadVerdict::kMisconfigured;
      out.detail = "2xx without the intent that was asked for";
      return;
    }
    out.verdict = ReadVerdict::kRead;
    out.detail = Detail(out.verdict);
    out.astra_status = std::move(reading->status);
    out.user_id = std::move(reading->user_id);
    out.verification_type = TypeOf(reading->kyc_type);
    out.attempt_id = ParseUuid(reading->attempt_id);
    return;
  }
  out.verdict = OfReadStatus(exchange.status);
  TakeRefusal(exchange, RetryAfterOf(exchange, now), out);
}

void ClassifyNotSent(const http::Outcome& exchange, Outcome& out) {
  out.verdict = Verdict::kNotSent;
  out.detail = exchange.detail.empty() ? Detail(out.verdict) : exchange.detail;
  out.repeat_pointless = RepeatPointless(exchange.cause);
  out.cancelled = exchange.cause == http::NotSentCause::kCancelled;
  out.lease_over = exchange.cause == http::NotSentCause::kLeaseOver;
}

void ClassifyAnswer(const http::Outcome& exchange, const std::optional<LimitRule>& limit_rule, absl::Time now,
                    Outcome& out) {
  const int status = exchange.status;
  TakeHead(exchange, out);

  if (IsSuccess(status)) {
    // Something was created even where its id is not known: it counts against the e-mail address all the same.
    out.confirmed = true;
    std::optional<Answer> answer;
    if (exchange.body_complete) answer = ParseAnswer(exchange.body);
    if (!answer.has_value()) {
      out.verdict = Verdict::kUnknown;
      out.detail = exchange.body_complete    ? "2xx without a usable id"
                   : exchange.detail.empty() ? "2xx with a body cut short"
                                             : exchange.detail;
      return;
    }
    out.verdict = Verdict::kCreated;
    out.detail = Detail(out.verdict);
    out.user_intent_id = std::move(answer->id);
    out.astra_status = std::move(answer->status);
    return;
  }

  // A body that was cut decides nothing, so the rule sees whole ones only. It goes first: an operator who names a
  // status knows more than the table.
  if (limit_rule.has_value() && status == limit_rule->status && exchange.body_complete &&
      ErrorBodyContains(exchange.body, limit_rule->substring)) {
    out.verdict = Verdict::kLimitReached;
    out.detail = Detail(out.verdict);
    return;
  }

  const std::optional<absl::Duration> retry_after = RetryAfterOf(exchange, now);
  out.verdict = OfStatus(status, retry_after.has_value());
  TakeRefusal(exchange, retry_after, out);
}

}  // namespace

Outcome Classify(const http::Outcome& exchange, const std::optional<LimitRule>& limit_rule, absl::Time now) {
  Outcome out;  // kUnknown
  out.error_type = ErrorTypeOf(exchange);
  switch (exchange.fate) {
    case http::Fate::kNotSent:
      ClassifyNotSent(exchange, out);
      return out;
    case http::Fate::kRefused:
      out.verdict = Verdict::kRefused;
      out.detail = exchange.detail.empty() ? Detail(out.verdict) : exchange.detail;
      return out;
    case http::Fate::kAnswered:
      ClassifyAnswer(exchange, limit_rule, now, out);
      return out;
    case http::Fate::kMaybeSent:
      break;
  }
  out.detail = exchange.detail.empty() ? std::string_view("no answer") : exchange.detail;
  return out;
}

ReadOutcome ClassifyRead(const http::Outcome& exchange, std::string_view user_intent_id, absl::Time now) {
  ReadOutcome out;  // kUnavailable
  out.error_type = ErrorTypeOf(exchange);
  switch (exchange.fate) {
    case http::Fate::kAnswered:
      ClassifyReadAnswer(exchange, user_intent_id, now, out);
      return out;
    case http::Fate::kNotSent:
      out.verdict = ReadVerdict::kNotSent;
      out.repeat_pointless = RepeatPointless(exchange.cause);
      break;
    case http::Fate::kRefused:
    case http::Fate::kMaybeSent:
      break;
  }
  out.detail = exchange.detail.empty() ? Detail(out.verdict) : exchange.detail;
  return out;
}

}  // namespace userintent::astra
