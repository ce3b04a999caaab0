// An answer of Astra's -> AnswerHead and Exchange, as the client on nghttp2 uses them -> Classify and ClassifyRead.
//
// An input is one byte for how the exchange ends, then heads as in HTTP/1.1 with ":status" as the first line ("name:
// value", an empty line ends each), and the body behind the final one. The oracle is the contract's table of errors
// written down a second time, and nlohmann for what a body says. The short way for flat bodies is held against the
// long.
#include <optional>
#include <string>

#include "nlohmann/json.hpp"
#include "server/astra/classify.h"
#include "server/astra/flat_answer.h"
#include "server/astra/retry_after.h"
#include "server/base/text.h"
#include "server/http/answer_head.h"
#include "server/http/exchange.h"
#include "server/http/exchange_text.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using astra::ReadVerdict;
using astra::Verdict;
using http::AnswerHead;
using http::Exchange;
using http::Fate;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);
constexpr std::string_view kIntent = "intent-1";

// One head. False: it was malformed, or too long.
bool ReadHead(Input& input, AnswerHead& head, Exchange& exchange, bool end) {
  if (exchange.answer == Exchange::Answer::kNone) exchange.answer = Exchange::Answer::kBegun;
  head.Begin();
  for (std::string_view line = input.Until('\n'); !line.empty(); line = input.Until('\n')) {
    const size_t colon = line.find(':', 1);
    const std::string_view name = line.substr(0, colon);
    std::string_view value = colon == line.npos ? std::string_view() : line.substr(colon + 1);
    if (name == ":status") value = TrimBlanks(value);
    switch (head.Read(name, &value)) {
      case AnswerHead::Field::kTake:
        exchange.TakeField(head.status(), name, value);
        break;
      case AnswerHead::Field::kSkip:
      case AnswerHead::Field::kIgnore:
        break;
      case AnswerHead::Field::kMalformed:
        return false;
    }
    if (exchange.TakeHeadBytes(line.size() + 32, 32 * 1024)) continue;
    if (!head.done() && head.status() >= 200) exchange.TakeStatus(head.status());
    return false;
  }
  return head.EndHead(end && input.empty());
}

// What H2Session does with the frames of a stream.
http::Outcome ReadAnswer(std::string_view bytes) {
  Input input(bytes);
  const uint8_t how = input.Byte();
  Exchange exchange;
  exchange.sending = (how & 3) == 3 ? Exchange::Sending::kUnsent : Exchange::Sending::kMaybeSent;
  const bool ends = (how & 4) == 0;
  const auto end = (how & 8) != 0 ? Exchange::End::kRefused : Exchange::End::kBroken;
  AnswerHead head;
  bool fine = exchange.sending == Exchange::Sending::kMaybeSent;
  while (fine && !head.done() && !input.empty()) {
    fine = ReadHead(input, head, exchange, ends);
    if (!fine || !head.done()) continue;
    exchange.TakeStatus(head.status());
    exchange.answer = Exchange::Answer::kHead;
  }
  while (fine && head.done() && !input.empty()) {
    const std::string_view piece = input.Text(1000);
    fine = head.ReadBody(piece.size()) && exchange.TakeBody(piece, astra::kMaxBody);
  }
  if (fine && ends) fine = head.EndBody();
  exchange.fault = head.fault();
  const bool complete = fine && ends;
  exchange.Finish(complete ? Exchange::End::kComplete : end, static_cast<http::NotSentCause>(1 + (how >> 4) % 8),
                  "what the client says");
  return std::move(exchange.outcome);
}

// The one string member `name` of a body that is a JSON object. Nothing: there is none, or two of them.
std::optional<std::string> StringMember(const std::string& body, const char* name) {
  if (body.find('\0') != body.npos) return std::nullopt;
  int found = 0;
  bool deep = false;
  const auto parsed = nlohmann::json::parse(
      body,
      [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
        using Event = nlohmann::json::parse_event_t;
        if (event == Event::key && depth == 1 && value == name) ++found;
        deep = deep || ((event == Event::object_start || event == Event::array_start) && depth >= 16);
        return true;
      },
      /*allow_exceptions=*/false);
  if (!parsed.is_object() || deep || found != 1 || !parsed[name].is_string()) return std::nullopt;
  return parsed[name].get<std::string>();
}

bool IsUsableId(const std::string& id) {
  if (id.empty() || id.size() > 256) return false;
  for (size_t i = 0; i < id.size(); ++i) {
    const auto byte = static_cast<unsigned char>(id[i]);
    if (byte < 0x20 || byte == 0x7f) return false;
    if (byte == 0xc2 && i + 1 < id.size() && static_cast<unsigned char>(id[i + 1]) < 0xa0) return false;
  }
  return true;
}

Verdict ByStatus(const http::Outcome& exchange) {
  switch (exchange.status) {
    case 400:
    case 422:
      return Verdict::kRejected;
    case 401:
    case 403:
      return Verdict::kCredentialsRejected;
    case 404:
    case 405:
    case 406:
    case 410:
    case 418:
      return Verdict::kMisconfigured;
    case 429:
      return Verdict::kRateLimited;
    case 503:
      return astra::ParseRetryAfter(exchange.retry_after, kNow) ? Verdict::kUnavailable : Verdict::kUnknown;
    default:
      return exchange.status / 100 == 3 && exchange.status != 303 ? Verdict::kMisconfigured : Verdict::kUnknown;
  }
}

void CheckCreation(const http::Outcome& exchange, const astra::Outcome& outcome) {
  const bool success = exchange.fate == Fate::kAnswered && exchange.status >= 200 && exchange.status < 300;
  Check(outcome.confirmed == success, "a 2xx status line confirms, and nothing else does");
  Check(outcome.http_status == exchange.status, "the status is that of the answer");
  Check((outcome.verdict == Verdict::kNotSent) == (exchange.fate == Fate::kNotSent),
        "not sent is what the client says");
  Check((outcome.verdict == Verdict::kRefused) == (exchange.fate == Fate::kRefused), "refused is what the client says");
  if (exchange.fate == Fate::kMaybeSent) Check(outcome.verdict == Verdict::kUnknown, "no answer is unknown");
  if (success) {
    const std::optional<std::string> id = StringMember(exchange.body, "id");
    const bool usable = exchange.body_complete && id && IsUsableId(*id);
    if (outcome.verdict == Verdict::kCreated) {
      Check(usable && outcome.user_intent_id == *id, "what was created has the id of a whole body");
    } else {
      Check(outcome.verdict == Verdict::kUnknown, "a 2xx is created or unknown");
      // The server refuses a status that stands there twice, too.
      Check(!usable || !StringMember(exchange.body, "status"),
            "an answer with an id, and a status or none, is created");
    }
  } else if (exchange.fate == Fate::kAnswered) {
    Check(outcome.verdict == ByStatus(exchange), "an answer is what the table says of its status");
  }
  Check(outcome.verdict == Verdict::kCreated || outcome.user_intent_id.empty(), "only what was created has an id");
  Check(outcome.astra_status.size() <= 64 && AllPrintable(outcome.astra_status), "a status is short and printable");
  Check(outcome.astra_request_id.size() <= 128 && AllPrintable(outcome.astra_request_id), "and so is a Request-Id");
  Check(
      !outcome.retry_after || (*outcome.retry_after >= absl::ZeroDuration() && *outcome.retry_after <= absl::Hours(24)),
      "a wait is between nothing and a day");
  Check(!outcome.detail.empty(), "every outcome has a word for the log");
}

void CheckRead(const http::Outcome& exchange, const astra::ReadOutcome& outcome) {
  if (exchange.fate != Fate::kAnswered) {
    Check(outcome.verdict == (exchange.fate == Fate::kNotSent ? ReadVerdict::kNotSent : ReadVerdict::kUnavailable),
          "a read without an answer was not sent, or is lost");
    return;
  }
  if (outcome.verdict == ReadVerdict::kRead) {
    Check(exchange.status / 100 == 2 && exchange.body_complete, "what was read is a whole 2xx");
    Check(StringMember(exchange.body, "id") == std::string(kIntent), "and says that it is the intent");
  }
  Check(outcome.verdict != ReadVerdict::kNotFound || exchange.status == 404, "only a 404 says that there is none");
  Check(AllPrintable(outcome.astra_status) && (outcome.user_id.empty() || IsUsableId(outcome.user_id)),
        "what is kept of a reading is fit to keep");
}

void CheckFlat(const std::string& body) {
  const auto answer = Timed([&] { return astra::ParseAnswer(body); });
  Check(answer == astra::ParseAnyAnswer(body), "an answer says the same with and without the short way");
  if (const astra::FlatAnswer flat(body); flat.flat()) {
    for (const char* const name : {"id", "status", "user_id", "kyc_type", ""}) {
      Check(flat.Text(name) == StringMember(body, name), "a flat body's texts are what it says");
    }
  }
}

}  // namespace

void Target(std::string_view input) {
  const http::Outcome exchange = Timed([&] { return ReadAnswer(input); });
  Check((exchange.fate == Fate::kAnswered) == (exchange.status >= 200), "an answer has a final status");
  Check(exchange.body.size() <= astra::kMaxBody, "a body is cut at its limit");
  CheckCreation(exchange, Timed([&] { return astra::Classify(exchange, std::nullopt, kNow); }));
  CheckRead(exchange, Timed([&] { return astra::ClassifyRead(exchange, kIntent, kNow); }));
  CheckFlat(exchange.body);

  // The rule of --astra_limit_error makes one verdict of some, and leaves all others.
  static const auto& rule = *new std::optional<astra::LimitRule>({400, "attempts"});
  const astra::Outcome ruled = Timed([&] { return astra::Classify(exchange, rule, kNow); });
  if (ruled.verdict == Verdict::kLimitReached) {
    Check(exchange.fate == Fate::kAnswered && exchange.status == 400 && exchange.body_complete,
          "the rule looks at whole bodies of its status only");
  } else {
    CheckCreation(exchange, ruled);
  }
}

}  // namespace userintent::fuzz
